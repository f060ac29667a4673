/** Questions to the server. */

import type * as T from "./types";

/** What the server refused, in its own words. */
export class Refusal extends Error {
  constructor(
    message: string,
    readonly status: number,
    readonly details: { kind?: string; at?: number; current?: T.SelectionFacts },
  ) {
    super(message);
  }
}

type Query = Record<string, string | number | null | undefined>;

/** An address under /api/, for fetch and for the `src` of pictures. */
export function address(path: string, query: Query = {}): string {
  const given = Object.entries(query).filter(([, value]) => value !== null && value !== undefined && value !== "");
  const text = given.map(([name, value]) => `${name}=${encodeURIComponent(String(value))}`).join("&");
  return `/api/${path}${text && `?${text}`}`;
}

async function answer(path: string, query: Query = {}, init: RequestInit = {}): Promise<Response> {
  let response: Response;
  try {
    response = await fetch(address(path, query), init);
  } catch (error) {
    if (init.signal?.aborted) throw error; // by ourselves
    throw new Refusal("The server does not answer: is `headwater view` still running?", 0, {});
  }
  if (response.ok) return response;
  const told = await response.json().catch(() => null);
  const details = told?.error ?? {};
  throw new Refusal(details.message ?? `The server answered ${response.status}.`, response.status, details);
}

async function json<R>(path: string, query: Query = {}, init: RequestInit = {}): Promise<R> {
  return (await (await answer(path, query, init)).json()) as R;
}

function body(value: unknown, method = "POST"): RequestInit {
  return { method, headers: { "Content-Type": "application/json" }, body: JSON.stringify(value) };
}

export const store = () => json<T.StoreFacts>("store");
export const colours = () => json<{ anchors: string[]; neutral_line: string }>("colours");
export const columnFacts = (name: string) => json<T.ColumnFacts>("column/facts", { name });
export const clusters = (explanation: string) => json<{ clusters: T.Cluster[] }>("clusters", { explanation });
export const spectrum = (explanation: string) => json<{ groups: T.SpectrumGroup[] }>("spectrum", { explanation });
export const analysis = () => json<T.AnalysisState>("analysis");
export const analyze = (question: object) => json<T.AnalysisState>("analysis", {}, body(question));
export const sample = (row: number) => json<T.Sample>(`sample/${row}`);
export const values = (row: number, explanation: string, part?: string) =>
  json<T.Values>(`sample/${row}/values`, { explanation, part });
export const clusterValues = (k: number, explanation: string) => json<T.Values>(`cluster/${k}/values`, { explanation });
export const liveValues = (key: string) => json<T.Values>(`live/${key}/values`);
// the model's work, which ends when the signal closes the connection
export const ledger = (row: number, explanation: string, signal: AbortSignal) =>
  json<T.Ledger>(`sample/${row}/ledger`, { explanation }, { signal });
export const flipping = (question: { rows: number[]; explanation: string } | { key: string }, signal: AbortSignal) =>
  json<T.Flipping>("flipping", {}, { ...body(question), signal });
export const explain = (row: number, question: T.LiveQuestion, signal: AbortSignal) =>
  json<T.LiveAnswer>("explain", {}, { ...body({ row, options: {}, ...question }), signal });

export async function samples(rows: readonly number[]): Promise<T.Sample[]> {
  return rows.length ? (await json<{ samples: T.Sample[] }>("samples", { rows: rows.join(",") })).samples : [];
}

/** The end of the colour scale that these samples share. */
export async function scale(rows: readonly number[], explanation: string, part?: string): Promise<number> {
  return rows.length ? (await json<{ limit: number }>("scale", { rows: rows.join(","), explanation, part })).limit : 0;
}

export async function column(name: string, type: "category" | "number"): Promise<Int32Array | Float32Array> {
  const bytes = await (await answer("column", { name })).arrayBuffer();
  return type === "category" ? new Int32Array(bytes) : new Float32Array(bytes);
}

export async function clusterRows(k: number, explanation: string): Promise<Int32Array> {
  return new Int32Array(await (await answer(`cluster/${k}/rows`, { explanation })).arrayBuffer());
}

/** Places on a map, [N, 2] in one array; `grown` is called as they arrive, with the number of whole places so far. */
export async function places(name: string, into: Float32Array, grown: (count: number) => void): Promise<void> {
  const response = await answer("map", { name });
  const bytes = new Uint8Array(into.buffer);
  const reader = response.body!.getReader();
  let read = 0;
  for (let part = await reader.read(); !part.done; part = await reader.read()) {
    bytes.set(part.value, read);
    read += part.value.length;
    grown(read >> 3);
  }
  if (read !== bytes.length) throw new Refusal("The map ended too early: reload the page.", 0, {});
}

/** Which rows a filter keeps, as bits: row i is bit i & 7 of byte i >> 3. */
export async function search(filter: string): Promise<Uint8Array> {
  return new Uint8Array(await (await answer("search", {}, body({ filter }))).arrayBuffer());
}

export const selections = () => json<{ selections: T.SelectionFacts[] }>("selections");
export const selection = (name: string) => json<T.SelectionFacts & { rows: number[] }>("selection", { name });
export const keep = (name: string, what: { rows?: number[]; note: string; revision: number | null }) =>
  json<T.SelectionFacts>("selection", { name }, body(what, "PUT"));
export const forget = (name: string, revision: number) =>
  answer("selection", { name, revision }, { method: "DELETE", headers: { "Content-Type": "application/json" } });

/** Have the browser save an export of rows; how many of how many it holds, where it was cut. */
export async function download(
  format: string,
  rows: number[],
  title: string,
  explanation: string,
): Promise<string | null> {
  const response = await answer("export", { format, explanation }, body({ rows, title }));
  const name = /filename="([^"]+)"/.exec(response.headers.get("Content-Disposition") ?? "")?.[1];
  save(await response.blob(), name ?? `${title}.${format}`);
  return response.headers.get("X-Truncated");
}

/** Have the browser save a file. */
export function save(content: Blob, name: string): void {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(content);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}
