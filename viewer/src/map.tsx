/** The map of all explanations: pan, zoom, lasso, and what lies over the points. */

import { useSignal, useSignalEffect, signal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import * as api from "./api";
import * as data from "./data";
import { count, integer, number } from "./format";
import { nearest, simplified } from "./geometry";
import { Icon } from "./icon";
import { Legend } from "./legend";
import { Stage, frame, metered } from "./stage";
import { Thumb } from "./heat";
import { useAnswer } from "./answers";
import * as view from "./view";

export const lassoing = signal(false);
/** The stage in use, for keys and tests. */
export const stage = signal<Stage | null>(null);

const CLICK = 5; // pixels that a pointer may slip in a click
const REACH = 12; // pixels from a point at which it is still meant
const SMOOTH = 1.5; // pixels by which a lasso may be simplified

export function MapView() {
  const canvas = useRef<HTMLCanvasElement>(null);
  const failure = useSignal<string | null>(null);
  useEffect(() => {
    let own: Stage | null = null;
    const start = () => {
      try {
        own?.dispose();
        own = stage.value = new Stage(canvas.current!);
      } catch (error) {
        failure.value = (error as Error).message;
      }
    };
    start();
    const lost = (event: Event) => event.preventDefault();
    canvas.current!.addEventListener("webglcontextlost", lost);
    canvas.current!.addEventListener("webglcontextrestored", start);
    return () => {
      own?.dispose();
      stage.value = null;
    };
  }, []);
  const facts = data.map.value;
  const placed = data.points.value;
  return (
    <section class={`map ${lassoing.value ? "lassoing" : ""}`} aria-label="Map of all explanations">
      <canvas
        ref={canvas}
        tabIndex={0}
        role="img"
        aria-label={`${facts?.title ?? "Map"}: ${count(data.store.value?.n ?? 0, "sample")}, coloured by ${data.column.value?.facts.title ?? "nothing"}. Press L to draw a lasso.`}
      />
      {stage.value && <Pointer canvas={canvas.current!} stage={stage.value} />}
      {stage.value && <Overlay stage={stage.value} />}
      <Tools />
      <Legend />
      {failure.value && <p class="notice">{failure.value}</p>}
      {!facts && data.store.value && <p class="notice">This store has no map.</p>}
      {facts && (!placed || placed.count * 2 < placed.xy.length) && (
        <p class="loading" role="status">
          {placed ? `${integer(placed.count)} of ${integer(placed.xy.length / 2)} places` : "Placing the samples…"}
        </p>
      )}
      {metered.value && <Meter />}
    </section>
  );
}

/** Follows the pointer over the canvas: drags move the map or draw a lasso, two fingers and the wheel zoom, a click opens. */
function Pointer({ canvas, stage }: { canvas: HTMLCanvasElement; stage: Stage }) {
  const line = useSignal<number[]>([]);
  const hovered = useSignal<{ row: number; left: number; top: number } | null>(null);
  useEffect(() => {
    const listening = new AbortController();
    const listen = (type: string, act: (event: any) => void) =>
      canvas.addEventListener(type, act, { signal: listening.signal, passive: false });
    const fingers = new Map<number, PointerEvent>();
    let travelled = 0;
    let drawing = false;
    listen("wheel", (event: WheelEvent) => {
      event.preventDefault();
      hovered.value = null;
      const step = event.deltaMode === WheelEvent.DOM_DELTA_LINE ? 16 * event.deltaY : event.deltaY;
      stage.zoom(Math.exp(-Math.max(Math.min(step, 240), -240) / 400), event.offsetX, event.offsetY);
    });
    listen("pointerdown", (event: PointerEvent) => {
      if (event.button !== 0) return;
      canvas.setPointerCapture(event.pointerId);
      fingers.set(event.pointerId, event);
      travelled = 0;
      drawing = lassoing.value && fingers.size === 1;
      line.value = drawing ? stage.toPlane(event.offsetX, event.offsetY) : [];
      hovered.value = null;
    });
    listen("pointermove", (event: PointerEvent) => {
      const before = fingers.get(event.pointerId);
      if (!before) {
        hovered.value = event.pointerType === "mouse" ? hit(stage, event) : null;
        return;
      }
      const [dx, dy] = [event.offsetX - before.offsetX, event.offsetY - before.offsetY];
      travelled += Math.hypot(dx, dy);
      if (drawing) line.value = [...line.value, ...traced(stage, canvas, event)];
      else if (fingers.size === 2) pinch(stage, fingers, event);
      else if (travelled > CLICK) stage.pan(dx, dy);
      fingers.set(event.pointerId, event);
    });
    const up = (event: PointerEvent) => {
      if (!fingers.delete(event.pointerId) || fingers.size) return;
      if (travelled <= CLICK) {
        const found = event.type === "pointerup" ? hit(stage, event) : null;
        if (found) view.sample.value = found.row;
      } else if (drawing) close(stage, line.value, event);
      line.value = [];
      drawing = false;
    };
    listen("pointerup", up);
    listen("pointercancel", up);
    listen("pointerleave", () => {
      hovered.value = null;
    });
    return () => listening.abort();
  }, [stage]);
  return (
    <>
      {line.value.length > 2 && <Drawn stage={stage} line={line.value} />}
      {hovered.value && <Tip {...hovered.value} />}
    </>
  );
}

/** All places that the pointer passed since the last event: a slow page is told of several at once. */
function traced(stage: Stage, canvas: HTMLCanvasElement, event: PointerEvent): number[] {
  const { left, top } = canvas.getBoundingClientRect();
  const passed = event.getCoalescedEvents();
  return (passed.length ? passed : [event]).flatMap((e) => stage.toPlane(e.clientX - left, e.clientY - top));
}

function hit(stage: Stage, event: PointerEvent): { row: number; left: number; top: number } | null {
  const placed = data.points.peek();
  if (!placed || fingersBusy(event)) return null;
  const [x, y] = stage.toPlane(event.offsetX, event.offsetY);
  const [edge] = stage.toPlane(event.offsetX + REACH, event.offsetY);
  const row = nearest(placed.xy, data.passing.peek(), x, y, edge - x);
  return row < 0 ? null : { row, left: event.offsetX, top: event.offsetY };
}

function fingersBusy(event: PointerEvent): boolean {
  return event.type === "pointermove" && event.buttons !== 0;
}

/** Two fingers: the map follows their middle and zooms with their distance. */
function pinch(stage: Stage, fingers: Map<number, PointerEvent>, event: PointerEvent): void {
  const other = [...fingers.values()].find((finger) => finger.pointerId !== event.pointerId)!;
  const before = fingers.get(event.pointerId)!;
  const apart = (finger: PointerEvent) => Math.hypot(finger.offsetX - other.offsetX, finger.offsetY - other.offsetY);
  stage.pan((event.offsetX - before.offsetX) / 2, (event.offsetY - before.offsetY) / 2);
  const factor = apart(event) / Math.max(apart(before), 1);
  stage.zoom(factor, (event.offsetX + other.offsetX) / 2, (event.offsetY + other.offsetY) / 2);
}

/** A lasso was drawn: it selects; with Shift it adds, with Alt it takes away. */
function close(stage: Stage, line: number[], event: PointerEvent): void {
  const map = data.map.peek();
  const polygon = simplified(line, SMOOTH / stage.projection().unit);
  if (!map || polygon.length < 6) return;
  const step = { kind: "lasso" as const, map: map.name, polygon };
  if (event.shiftKey) view.steps.value = [...view.steps.value, step];
  else if (event.altKey) view.steps.value = [...view.steps.value, { ...step, minus: true }];
  else view.steps.value = [step];
  view.sample.value = null;
  view.page.value = 0;
  view.tab.value = "samples";
  lassoing.value = false;
}

function Drawn({ stage, line }: { stage: Stage; line: number[] }) {
  return (
    <svg class="over">
      <polygon class="lasso drawing" points={pixels(stage, line)} />
    </svg>
  );
}

function pixels(stage: Stage, line: readonly number[]): string {
  const { unit, left, top } = stage.projection();
  return Array.from(line, (v, i) => (i % 2 ? top - v * unit : left + v * unit).toFixed(1)).join(" ");
}

// what the tools cover of the map's corner, in pixels
const TOOLS = { right: 250, bottom: 52 };
// how wide a tile must be, in pixels, to hold the number of its samples beside its title
const COUNTED = 110;

/** The place of a caption, below the tools where they would cover it. */
function clear(x: number, y: number): { x: number; y: number } {
  return { x, y: x < TOOLS.right && y > 0 && y < TOOLS.bottom ? TOOLS.bottom + 10 : y };
}

/** Captions of the groups' tiles, the lassos of the selection, and a ring around the sample in front. */
function Overlay({ stage }: { stage: Stage }) {
  const { unit, left, top } = stage.projection();
  const tiles = data.map.value?.tiles ?? [];
  const row = view.sample.value;
  const xy = data.points.value?.xy;
  return (
    <svg class="over" aria-hidden="true">
      {tiles.map((tile) => (
        <g key={tile.title}>
          <rect
            class="tile"
            x={left + tile.x * unit}
            y={top - (tile.y + tile.height) * unit}
            width={tile.width * unit}
            height={tile.height * unit}
          />
          <text class="caption" {...clear(left + tile.x * unit + 6, top - (tile.y + tile.height) * unit + 15)}>
            {tile.title}
            {tile.width * unit >= COUNTED && <tspan class="faint"> {integer(tile.n)}</tspan>}
          </text>
        </g>
      ))}
      {view.steps.value.map((step, i) =>
        step.kind === "lasso" && step.map === data.map.value?.name ? (
          <polygon key={i} class={step.minus ? "lasso minus" : "lasso"} points={pixels(stage, step.polygon)} />
        ) : null,
      )}
      {row !== null && xy && 2 * row < xy.length && (
        <circle class="ring" cx={left + xy[2 * row]! * unit} cy={top - xy[2 * row + 1]! * unit} r={9} />
      )}
    </svg>
  );
}

/** What is under the pointer. */
function Tip({ row, left, top }: { row: number; left: number; top: number }) {
  const steady = useSignal(-1);
  useEffect(() => {
    const timer = setTimeout(() => {
      steady.value = row;
    }, 70);
    return () => clearTimeout(timer);
  }, [row]);
  const { value: sample } = useAnswer(steady.value === row ? `sample ${row}` : null, () => api.sample(row));
  const size = stage.value?.size.value ?? { width: 1, height: 1 };
  const side = {
    ...(left > size.width / 2 ? { right: `${size.width - left + 14}px` } : { left: `${left + 14}px` }),
    ...(top > size.height / 2 ? { bottom: `${size.height - top + 10}px` } : { top: `${top + 10}px` }),
  };
  const column = data.column.value;
  const value = column?.values[row];
  const shown = column?.facts.type === "category" ? column.facts.categories[value ?? -1] : number(value);
  const explanation = data.explanation.value;
  return (
    <div class="tip" style={side}>
      {explanation && steady.value === row && <Thumb row={row} explanation={explanation} />}
      <div>
        <b>{sample ? sample.id : `row ${row}`}</b>
        {sample?.label && <span>label {sample.label.title}</span>}
        {sample && explanation && sample.explanations[explanation.name]?.target && (
          <span>explained {sample.explanations[explanation.name]!.target!.title}</span>
        )}
        {column && (
          <span>
            {column.facts.title} {shown ?? "–"}
          </span>
        )}
      </div>
    </div>
  );
}

function Tools() {
  const own = stage.value;
  const selected = view.steps.value.length > 0;
  return (
    <div class="tools" role="toolbar" aria-label="Map">
      <button
        class="tool"
        aria-pressed={lassoing.value}
        title="Lasso (L): Shift adds, Alt takes away"
        onClick={() => {
          lassoing.value = !lassoing.value;
        }}
      >
        <Icon d="M4 9c0-3 3.6-5 8-5s8 2 8 5-3.6 5-8 5c-2 0-4-.4-5.300-1.200M7 12.500c1.500.500 1.600 2.500 0 3s-2.500-1-1.500-2.200M6.500 15.500c.5 2-.5 3.500-2 4.500" />
        <span>Lasso</span>
      </button>
      <button class="tool" title="Zoom in (+)" aria-label="Zoom in" onClick={() => own?.zoom(1.6)}>
        <Icon d="M12 5v14M5 12h14" />
      </button>
      <button class="tool" title="Zoom out (−)" aria-label="Zoom out" onClick={() => own?.zoom(1 / 1.6)}>
        <Icon d="M5 12h14" />
      </button>
      <button
        class="tool"
        title="Whole map (0)"
        aria-label="Show the whole map"
        onClick={() => {
          view.camera.value = view.WHOLE;
        }}
      >
        <Icon d="M4 9V4h5M20 9V4h-5M4 15v5h5M20 15v5h-5" />
      </button>
      {selected && (
        <button
          class="tool"
          title="Zoom to the selection (Z)"
          aria-label="Zoom to the selection"
          onClick={() => own?.zoomToRows()}
        >
          <Icon d="M12 8a4 4 0 1 0 0 8a4 4 0 1 0 0-8M12 2v4M12 18v4M2 12h4M18 12h4" />
        </button>
      )}
      <button
        class="tool"
        title="Save the map as PNG"
        aria-label="Save the map as PNG"
        onClick={() => own?.picture().then((blob) => api.save(blob, "map.png"), data.tell)}
      >
        <Icon d="M12 4v11M7 11l5 5 5-5M5 20h14" />
      </button>
    </div>
  );
}

/** How long a frame takes, drawn again and again while it is shown. */
function Meter() {
  useSignalEffect(() => {
    const timer = setInterval(() => stage.value?.measure(1), 500);
    return () => clearInterval(timer);
  });
  const now = frame.value;
  return (
    <p class="meter">
      {now ? `${now.milliseconds.toFixed(1)} ms a frame · ${integer(now.points)} points · ${now.renderer}` : "…"}
    </p>
  );
}
