/** A selection is told by the steps that make it, so that a link can repeat it on the same store. */

import { inside } from "./geometry";

/** Where a step's samples come from; with `minus` they are taken out, else they are added. */
export type Step = { minus?: boolean } & (
  | { kind: "lasso"; map: string; polygon: number[] }
  | { kind: "category"; column: string; code: number }
  | { kind: "saved"; name: string }
  | { kind: "rows"; rows: number[] }
);

/** What the steps need to be looked up. */
export interface Sources {
  places(map: string): Promise<Float32Array>;
  codes(column: string): Promise<Int32Array>;
  saved(name: string): Promise<number[]>;
}

/** The samples that the steps leave, as 1 for each row among n. */
export async function resolve(steps: readonly Step[], n: number, sources: Sources): Promise<Uint8Array> {
  const found = new Uint8Array(n);
  for (const step of steps) {
    const own = await marked(step, n, sources);
    for (let i = 0; i < n; i++) if (own[i]) found[i] = step.minus ? 0 : 1;
  }
  return found;
}

async function marked(step: Step, n: number, sources: Sources): Promise<Uint8Array> {
  if (step.kind === "lasso") return inside(await sources.places(step.map), step.polygon);
  const found = new Uint8Array(n);
  if (step.kind === "category") {
    const codes = await sources.codes(step.column);
    for (let i = 0; i < n; i++) if (codes[i] === step.code) found[i] = 1;
  } else {
    for (const row of step.kind === "saved" ? await sources.saved(step.name) : step.rows) if (row < n) found[row] = 1;
  }
  return found;
}

const MARK = { lasso: "p", category: "c", saved: "n", rows: "r" } as const;

/** Steps as text without spaces: `+p~places~x,y,...;-c~cluster~34;+n~name;+r~1,2`. */
export function written(steps: readonly Step[]): string {
  return steps.map((step) => `${step.minus ? "-" : "+"}${MARK[step.kind]}~${content(step)}`).join(";");
}

function content(step: Step): string {
  switch (step.kind) {
    case "lasso":
      return `${encodeURIComponent(step.map)}~${step.polygon.map((v) => Number(v.toFixed(4))).join(",")}`;
    case "category":
      return `${encodeURIComponent(step.column)}~${step.code}`;
    case "saved":
      return encodeURIComponent(step.name);
    case "rows":
      return step.rows.join(",");
  }
}

/** The steps that `written` told; what it cannot have told is left out. */
export function read(text: string): Step[] {
  return text
    .split(";")
    .map(one)
    .filter((step) => step !== null);
}

function one(text: string): Step | null {
  const [head, first = "", second = ""] = text.split("~");
  const minus = head?.startsWith("-") ? { minus: true } : {};
  switch (head?.slice(1)) {
    case MARK.lasso: {
      const polygon = numbers(second);
      const whole = polygon.length >= 6 && polygon.length % 2 === 0;
      return whole ? { kind: "lasso", map: decodeURIComponent(first), polygon, ...minus } : null;
    }
    case MARK.category:
      return { kind: "category", column: decodeURIComponent(first), code: Number(second), ...minus };
    case MARK.saved:
      return { kind: "saved", name: decodeURIComponent(first), ...minus };
    case MARK.rows:
      return { kind: "rows", rows: numbers(first), ...minus };
    default:
      return null;
  }
}

function numbers(text: string): number[] {
  return text.split(",").map(Number).filter(Number.isFinite);
}
