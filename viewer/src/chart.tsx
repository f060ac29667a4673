/** Small charts of lines, bands and dots, drawn as SVG in the page's colours. */

import type { ComponentChildren } from "preact";
import { number } from "./format";

export interface Curve {
  name: string;
  /** Names the look of the line: a class of the style sheet. */
  look: string;
  x: readonly number[];
  y: readonly (number | null)[];
  low?: readonly (number | null)[] | null;
  high?: readonly (number | null)[] | null;
  dots?: boolean;
}

const [WIDTH, HEIGHT] = [460, 240];
const MARGIN = { left: 46, right: 12, top: 10, bottom: 34 };

interface Props {
  curves: Curve[];
  title: string;
  xTitle: string;
  yTitle: string;
  /** The number of a small chart's ticks. */
  ticks?: number;
  children?: (x: (v: number) => number, y: (v: number) => number, bottom: number) => ComponentChildren;
}

export function Chart({ curves, title, xTitle, yTitle, ticks = 5, children }: Props) {
  const xs = curves.flatMap((c) => [...c.x]);
  const ys = curves.flatMap((c) => [...c.y, ...(c.low ?? []), ...(c.high ?? [])]).filter((v) => v !== null);
  const [xTicks, yTicks] = [steps(span(xs), ticks), steps(span([...ys, 0]), ticks)];
  const [left, right] = span(xs);
  const [low, high] = span([...ys, 0, ...yTicks]);
  const x = (v: number) => MARGIN.left + ((v - left) / (right - left || 1)) * (WIDTH - MARGIN.left - MARGIN.right);
  const y = (v: number) =>
    HEIGHT - MARGIN.bottom - ((v - low) / (high - low || 1)) * (HEIGHT - MARGIN.top - MARGIN.bottom);
  const bottom = HEIGHT - MARGIN.bottom;
  return (
    <svg class="chart" viewBox={`0 0 ${WIDTH} ${HEIGHT}`} role="img" aria-label={title}>
      {yTicks.map((v) => (
        <g key={v}>
          <path class="grid" d={`M${MARGIN.left} ${y(v)}H${WIDTH - MARGIN.right}`} />
          <text class="tick" x={MARGIN.left - 6} y={y(v) + 4} text-anchor="end">
            {number(v)}
          </text>
        </g>
      ))}
      {xTicks.map((v) => (
        <text key={v} class="tick" x={x(v)} y={bottom + 15} text-anchor="middle">
          {number(v)}
        </text>
      ))}
      <text class="title" x={(MARGIN.left + WIDTH - MARGIN.right) / 2} y={HEIGHT - 4} text-anchor="middle">
        {xTitle}
      </text>
      <text class="title" transform={`translate(11 ${(MARGIN.top + bottom) / 2}) rotate(-90)`} text-anchor="middle">
        {yTitle}
      </text>
      {children?.(x, y, bottom)}
      {curves.map((c) => (
        <g key={c.name} class={c.look}>
          {c.low && c.high && <path class="band" d={band(c, x, y)} />}
          {c.dots ? (
            c.x.map((v, i) => c.y[i] !== null && <circle key={v} class="dot" cx={x(v)} cy={y(c.y[i]!)} r={3.2} />)
          ) : (
            <path class="line" d={line(c.x, c.y, x, y)} />
          )}
        </g>
      ))}
    </svg>
  );
}

export function ChartLegend({ curves, told }: { curves: Curve[]; told?: (curve: Curve, i: number) => string }) {
  return (
    <ul class="keys">
      {curves.map((c, i) => (
        <li key={c.name} class={c.look}>
          <svg viewBox="0 0 22 8" aria-hidden="true">
            <path class="line" d="M1 4H21" />
          </svg>
          {c.name}
          {told && <span class="faint"> {told(c, i)}</span>}
        </li>
      ))}
    </ul>
  );
}

type Scale = (v: number) => number;

function line(xs: readonly number[], ys: readonly (number | null)[], x: Scale, y: Scale): string {
  let pen = "M";
  return xs
    .map((v, i) => {
      const at = ys[i];
      if (at === null || at === undefined) {
        pen = "M";
        return "";
      }
      const part = `${pen}${x(v).toFixed(1)} ${y(at).toFixed(1)}`;
      pen = "L";
      return part;
    })
    .join("");
}

function band(c: Curve, x: Scale, y: Scale): string {
  const known = c.x.map((_, i) => i).filter((i) => c.low![i] !== null && c.high![i] !== null);
  const at = (i: number, side: readonly (number | null)[]) => `${x(c.x[i]!).toFixed(1)} ${y(side[i]!).toFixed(1)}`;
  return `M${[...known.map((i) => at(i, c.high!)), ...known.reverse().map((i) => at(i, c.low!))].join("L")}Z`;
}

function span(values: readonly number[]): [number, number] {
  return values.reduce<[number, number]>(([a, b], v) => [Math.min(a, v), Math.max(b, v)], [Infinity, -Infinity]);
}

/** Round numbers within a range: about `wanted` of them, 1, 2 or 5 times a power of ten apart. */
function steps([low, high]: [number, number], wanted: number): number[] {
  if (!(high > low)) return Number.isFinite(low) ? [low] : [];
  const rough = (high - low) / wanted;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * ([1, 2, 5, 10].find((m) => m * power >= rough) ?? 10);
  const first = Math.ceil(low / step - 1e-9);
  const last = Math.floor(high / step + 1e-9);
  return Array.from({ length: last - first + 1 }, (_, i) => Number(((first + i) * step).toPrecision(12)));
}
