/** Inputs and their relevance, by the kind of data: pictures come from the server, all else is drawn here. */

import { Fragment } from "preact";
import { useEffect, useRef } from "preact/hooks";
import { useAnswer } from "./answers";
import * as api from "./api";
import * as data from "./data";
import { number } from "./format";
import { along, css } from "./palette";
import type { ExplanationFacts, Kind, SeriesValues, TableValues, TextValues, Values } from "./types";

export type Aspect = "input" | "heatmap" | "overlay";

/** What relevance is shown: of a stored explanation, of one made just now, or the mean of a cluster; `waiting` for its scale. */
export type Source = { kind: Kind; limit?: number | null; waiting?: boolean; frame?: number | undefined } & (
  | { of: "sample"; row: number; explanation: string; part?: string | undefined }
  | { of: "live"; row: number; key: string }
  | { of: "cluster"; label: number; explanation: string }
);

export function isPicture(kind: Kind): boolean {
  return kind === "image" || kind === "spectrogram" || kind === "video";
}

/** Which aspects there are to see: without inputs, or of a mean, the heatmap alone. */
export function aspects(kind: Kind): Aspect[] {
  if (kind === "text" || kind === "table") return ["overlay"];
  return data.store.value?.inputs ? ["input", "heatmap", "overlay"] : ["heatmap"];
}

/** The colour of relevance on a scale that ends at `limit`. */
export function heat(value: number | null, limit: number): string {
  return css(along(data.anchors.value, value === null || !limit ? 0.5 : 0.5 + value / limit / 2));
}

/** Writing on a ground of relevance: white where the ground is dark. */
function onHeat(value: number | null, limit: number): { background: string; color: string } {
  const deep = value !== null && limit > 0 && Math.abs(value) > 0.7 * limit;
  return { background: heat(value, limit), color: deep ? "#ffffff" : "#1a1f26" };
}

export function Heat({ source, aspect, size }: { source: Source; aspect: Aspect; size: "small" | "large" }) {
  return isPicture(source.kind) ? (
    <Picture source={source} aspect={aspect} />
  ) : (
    <Drawing source={source} aspect={aspect} size={size} />
  );
}

/** The smallest view of a sample. */
export function Thumb({ row, explanation }: { row: number; explanation: ExplanationFacts }) {
  if (!isPicture(explanation.kind)) return null;
  const source: Source = { of: "sample", row, explanation: explanation.name, kind: explanation.kind };
  return <Picture source={source} aspect={data.store.value?.inputs ? "overlay" : "heatmap"} />;
}

function Picture({ source, aspect }: { source: Source; aspect: Aspect }) {
  if (source.waiting && aspect !== "input") return <span class="pixels" aria-busy="true" />;
  return (
    <img class="pixels" loading="lazy" decoding="async" src={pictureOf(source, aspect)} alt={caption(source, aspect)} />
  );
}

function caption(source: Source, aspect: Aspect): string {
  const what = source.of === "cluster" ? `cluster ${source.label}` : `sample ${source.row}`;
  return `${aspect === "input" ? "Input" : aspect === "heatmap" ? "Heatmap" : "Heatmap over the input"} of ${what}`;
}

function pictureOf(source: Source, aspect: Aspect): string {
  const { limit, frame } = source;
  if (source.of === "cluster") {
    return api.address(`cluster/${source.label}/heatmap.png`, { explanation: source.explanation, limit });
  }
  const part = source.of === "sample" ? source.part : undefined;
  if (aspect === "input") return api.address(`sample/${source.row}/input.png`, { frame, part });
  if (source.of === "live") return api.address(`live/${source.key}/${aspect}.png`, { limit, frame });
  return api.address(`sample/${source.row}/${aspect}.png`, { explanation: source.explanation, limit, frame, part });
}

function valuesOf(source: Source): [string, () => Promise<Values>] {
  switch (source.of) {
    case "sample":
      return [
        `values ${source.row} ${source.explanation} ${source.part ?? ""}`,
        () => api.values(source.row, source.explanation, source.part),
      ];
    case "live":
      return [`live ${source.key}`, () => api.liveValues(source.key)];
    case "cluster":
      return [`mean ${source.label} ${source.explanation}`, () => api.clusterValues(source.label, source.explanation)];
  }
}

function Drawing({ source, aspect, size }: { source: Source; aspect: Aspect; size: "small" | "large" }) {
  const { value, error } = useAnswer(...valuesOf(source));
  if (error) return <p class="faint">{error}</p>;
  if (!value) return <div class={`drawing ${size}`} aria-busy="true" />;
  const limit = source.limit || value.limit;
  if (value.kind === "series") return <Series values={value} limit={limit} aspect={aspect} size={size} />;
  if (value.kind === "text") return <Words values={value} limit={limit} size={size} />;
  return <Features values={value} limit={limit} most={size === "small" ? 4 : 40} />;
}

const LANE = { small: 44, large: 90 };
// more channels than this share the height of so many
const LANES = { small: 2, large: 6 };

/** Channels over time: the line is the signal, the ground behind it (or, without the signal, bars) the relevance. */
function Series({
  values,
  limit,
  aspect,
  size,
}: {
  values: SeriesValues;
  limit: number;
  aspect: Aspect;
  size: "small" | "large";
}) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const channels = values.relevance.length;
  const height = LANE[size] * Math.min(channels, LANES[size]);
  const anchors = data.anchors.value;
  useEffect(() => {
    const own = canvas.current!;
    const observer = new ResizeObserver(() => draw(own, values, limit, aspect, size === "large"));
    observer.observe(own);
    return () => observer.disconnect();
  }, [values, limit, aspect, size, anchors]);
  const steps = (values.relevance[0]?.length ?? 0) * values.step;
  return (
    <div>
      <canvas
        ref={canvas}
        class="series paper"
        style={{ height: `${height}px` }}
        role="img"
        aria-label={`${aspect} of ${values.names.join(", ") || `${channels} channels`}`}
      />
      {size === "large" && (
        <p class="time" aria-hidden="true">
          <span>0</span>
          <span>{values.rate ? `${number(steps / values.rate)} s` : `${number(steps)} steps`}</span>
        </p>
      )}
    </div>
  );
}

function draw(canvas: HTMLCanvasElement, values: SeriesValues, limit: number, aspect: Aspect, named: boolean): void {
  const width = (canvas.width = Math.max(Math.round(canvas.clientWidth * devicePixelRatio), 1));
  const height = (canvas.height = Math.max(Math.round(canvas.clientHeight * devicePixelRatio), 1));
  const context = canvas.getContext("2d")!;
  const lane = height / values.relevance.length;
  values.relevance.forEach((relevance, channel) => {
    const top = channel * lane;
    const signal = values.signal?.[channel];
    if (aspect === "heatmap" || !signal) bars(context, relevance, limit, width, top, lane);
    else {
      if (aspect === "overlay") ground(context, relevance, limit, width, top, lane);
      stroke(context, signal, width, top, lane);
    }
    if (named && values.names[channel]) {
      context.font = `${11 * devicePixelRatio}px system-ui, sans-serif`;
      context.fillStyle = "#5c6672";
      context.fillText(values.names[channel], 5 * devicePixelRatio, top + 13 * devicePixelRatio);
    }
  });
}

function ground(
  context: CanvasRenderingContext2D,
  relevance: (number | null)[],
  limit: number,
  width: number,
  top: number,
  lane: number,
): void {
  const step = width / relevance.length;
  relevance.forEach((value, t) => {
    context.fillStyle = heat(value, limit);
    context.fillRect(Math.floor(t * step), top, Math.ceil(step) + 1, lane);
  });
}

function bars(
  context: CanvasRenderingContext2D,
  relevance: (number | null)[],
  limit: number,
  width: number,
  top: number,
  lane: number,
): void {
  const step = width / relevance.length;
  const half = lane / 2;
  context.fillStyle = "#c3c8ce";
  context.fillRect(0, top + half, width, 1);
  relevance.forEach((value, t) => {
    if (!value) return;
    const length = Math.max(Math.min(Math.abs(value) / limit, 1) * (half - 2), 1);
    // full colour for all: the length says how much, the colour which sign
    context.fillStyle = heat(Math.sign(value) * limit * 0.8, limit);
    context.fillRect(t * step, value > 0 ? top + half - length : top + half, Math.max(step, 1), length);
  });
}

function stroke(
  context: CanvasRenderingContext2D,
  signal: (number | null)[],
  width: number,
  top: number,
  lane: number,
): void {
  const known = signal.filter((v) => v !== null);
  const low = known.reduce((a, b) => Math.min(a, b), Infinity);
  const high = known.reduce((a, b) => Math.max(a, b), -Infinity);
  context.strokeStyle = "#1d232b";
  context.lineWidth = devicePixelRatio;
  context.beginPath();
  signal.forEach((value, t) => {
    if (value === null) return;
    const x = ((t + 0.5) / signal.length) * width;
    const y = top + lane - 3 - ((value - low) / (high - low || 1)) * (lane - 6);
    if (t === 0) context.moveTo(x, y);
    else context.lineTo(x, y);
  });
  context.stroke();
}

const FEW_WORDS = 60;

/** Words on a ground of their relevance. */
function Words({ values, limit, size }: { values: TextValues; limit: number; size: "small" | "large" }) {
  const shown = size === "small" ? Math.min(values.tokens.length, FEW_WORDS) : values.tokens.length;
  return (
    <p class={`words paper ${size}`}>
      {values.tokens.slice(0, shown).map((token, i) => (
        <Fragment key={i}>
          <span style={onHeat(values.relevance[i] ?? null, limit)} title={number(values.relevance[i])}>
            {token}
          </span>{" "}
        </Fragment>
      ))}
      {shown < values.tokens.length && "…"}
    </p>
  );
}

/** Features of a table with the largest relevance: name, value, and a bar to the left or right of zero. */
function Features({ values, limit, most }: { values: TableValues; limit: number; most: number }) {
  const size = (i: number) => Math.abs(values.relevance[i] ?? 0);
  const order = values.names.map((_, i) => i).sort((a, b) => size(b) - size(a));
  return (
    <table class="features">
      <tbody>
        {order.slice(0, most).map((i) => (
          <tr key={i}>
            <th scope="row">{values.names[i]}</th>
            <td class="value">{values.values ? worded(values.values[i]) : ""}</td>
            <td class="bar">
              <Bar value={values.relevance[i] ?? 0} limit={limit} />
            </td>
            <td class="value">{number(values.relevance[i])}</td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}

function worded(value: number | string | null | undefined): string {
  return typeof value === "string" ? value : number(value);
}

/** A bar that grows from the middle to the right where positive, to the left where negative. */
export function Bar({ value, limit }: { value: number; limit: number }) {
  const share = Math.min(Math.abs(value) / (limit || 1), 1) * 50;
  return (
    <svg class="signed" viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">
      <rect x={value < 0 ? 50 - share : 50} y={1} width={share} height={8} fill={heat(Math.sign(value) * 0.8, 1)} />
      <path d="M50 0V10" />
    </svg>
  );
}

/** The colours of relevance from -limit to limit. */
export function ColourBar({ limit }: { limit: number | null }) {
  const stops = Array.from({ length: 9 }, (_, i) => heat(i / 4 - 1, 1));
  return (
    <span class="colourbar" title="Relevance: the end of the scale is where half a percent of the pixels lie beyond">
      <span>{limit === null ? "−" : number(-limit)}</span>
      <i style={{ background: `linear-gradient(to right, ${stops.join(", ")})` }} />
      <span>{limit === null ? "+" : number(limit)}</span>
    </span>
  );
}
