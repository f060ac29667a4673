/** What was read from the store, and what follows from it and the view. */

import { computed, effect, signal } from "@preact/signals";
import { forgetAnswers } from "./answers";
import * as api from "./api";
import { type Colour, rgb } from "./palette";
import { type Sources, resolve } from "./steps";
import type {
  AnalysisState,
  Cluster,
  ColumnFacts,
  ExplanationFacts,
  MapFacts,
  SelectionFacts,
  StoreFacts,
} from "./types";
import * as view from "./view";

export interface Column {
  facts: ColumnFacts;
  values: Int32Array | Float32Array;
}

export const store = signal<StoreFacts | null>(null);
/** The colours of heatmaps, from the negative end of the scale to the positive. */
export const anchors = signal<Colour[]>([]);
export const message = signal<string | null>(null);

export const explanation = computed<ExplanationFacts | null>(
  () =>
    store.value?.explanations.find((e) => e.name === view.explanation.value) ?? store.value?.explanations[0] ?? null,
);
export const maps = computed<MapFacts[]>(() => store.value?.maps ?? []);
export const map = computed<MapFacts | null>(
  () => maps.value.find((m) => m.name === view.map.value) ?? maps.value[0] ?? null,
);
export const columns = computed(() => (store.value?.columns ?? []).filter((c) => c.type !== "text"));

/** Places of the map in front; grown while they arrive. */
export const points = signal<{ map: string; xy: Float32Array; count: number } | null>(null);
export const column = signal<Column | null>(null);
export const clusters = signal<Cluster[] | null>(null);
export const saved = signal<SelectionFacts[]>([]);
export const analysis = signal<AnalysisState | null>(null);

/** 1 for the rows that the filter keeps, null where it keeps all. */
export const passing = signal<Uint8Array | null>(null);
export const filterError = signal<string | null>(null);
/** 1 for the rows that the steps select, null where nothing is selected. */
export const picked = signal<Uint8Array | null>(null);

/** Rows in front: the selected ones that pass the filter, in the order asked for. */
export const rows = signal<Uint32Array>(new Uint32Array());

export function tell(error: unknown): void {
  message.value = error instanceof Error ? error.message : String(error);
}

const placesOf = new Map<string, Promise<Float32Array>>();
const columnOf = new Map<string, Promise<Column>>();

/** A column of the store; each is read once. */
export function columnNamed(name: string): Promise<Column> {
  return once(columnOf, name, async () => {
    const facts = await api.columnFacts(name);
    return { facts, values: await api.column(name, facts.type) };
  });
}

function placesNamed(name: string): Promise<Float32Array> {
  return once(placesOf, name, async () => {
    const xy = new Float32Array(2 * store.value!.n).fill(FAR);
    let seen = 0;
    await api.places(name, xy, (count) => {
      for (; seen < 2 * count; seen++) if (Number.isNaN(xy[seen])) xy[seen] = FAR;
      if (map.peek()?.name === name) points.value = { map: name, xy, count };
    });
    return xy;
  });
}

// where samples without a place are put: out of sight, and out of every lasso
const FAR = 1e6;

function once<V>(cache: Map<string, Promise<V>>, key: string, make: () => Promise<V>): Promise<V> {
  const known = cache.get(key) ?? make();
  cache.set(key, known);
  known.catch(() => cache.delete(key));
  return known;
}

const sources: Sources = {
  places: placesNamed,
  codes: async (name) => (await columnNamed(name)).values as Int32Array,
  saved: async (name) => (await api.selection(name)).rows,
};

/** Keep a signal at what a question answers; an answer that comes after a later question is thrown away. */
function keep<V>(ask: () => Promise<V> | V, put: (value: V) => void, failed: (error: unknown) => void = tell): void {
  let latest = 0;
  effect(() => {
    const own = ++latest;
    Promise.resolve(ask()).then(
      (value) => own === latest && put(value),
      (error) => own === latest && failed(error),
    );
  });
}

function spread(bits: Uint8Array, n: number): Uint8Array {
  return Uint8Array.from({ length: n }, (_, i) => (bits[i >> 3]! >> (i & 7)) & 1);
}

function bothOf(a: Uint8Array | null, b: Uint8Array | null): Uint8Array | null {
  return a && b ? a.map((own, i) => own & b[i]!) : (a ?? b);
}

async function listed(mask: Uint8Array | null, n: number, order: string): Promise<Uint32Array> {
  const all = new Uint32Array(n);
  let count = 0;
  for (let i = 0; i < n; i++) if (mask === null || mask[i]) all[count++] = i;
  const found = all.slice(0, count);
  if (!order) return found;
  const { values } = await columnNamed(order.replace(/^-/, ""));
  const sign = order.startsWith("-") ? -1 : 1;
  // samples without a value come last in either direction
  const key = (row: number) => (Number.isNaN(values[row]) ? Infinity : sign * values[row]!);
  return found.sort((a, b) => key(a) - key(b) || a - b);
}

/** The name of a column of the analysis of the explanation in front. */
export function ofAnalysis(name: "cluster" | "group" | "outlier"): string | null {
  const own = explanation.value?.name;
  const names = columns.value.map((c) => c.name);
  return (
    [`${own}.${name}`, own === store.value?.explanations[0]?.name ? name : ""].find((n) => names.includes(n)) ?? null
  );
}

/** Read the store, and keep what is shown true to the view from then on. */
export async function open(): Promise<void> {
  const [facts, colours] = await Promise.all([api.store(), api.colours()]);
  anchors.value = colours.anchors.map(rgb);
  store.value = facts;
  document.title = `${facts.title} · Headwater`;
  keep(
    () => map.value && placesNamed(map.value.name),
    (xy) => {
      points.value = xy && { map: map.value!.name, xy, count: xy.length / 2 };
    },
  );
  keep(
    () => (colourColumn.value ? columnNamed(colourColumn.value) : null),
    (found) => {
      column.value = found;
    },
  );
  keep(
    async () => (explanation.value?.analysis ? (await api.clusters(explanation.value.name)).clusters : null),
    (found) => {
      clusters.value = found;
    },
  );
  keep(
    () => (view.filter.value.trim() ? api.search(view.filter.value) : null),
    (bits) => {
      passing.value = bits && spread(bits, facts.n);
      filterError.value = null;
    },
    (error) => {
      filterError.value = error instanceof Error ? error.message : String(error);
    },
  );
  keep(
    () => (view.steps.value.length ? resolve(view.steps.value, facts.n, sources) : null),
    (mask) => {
      picked.value = mask;
    },
  );
  keep(
    () => listed(bothOf(picked.value, passing.value), facts.n, view.order.value),
    (found) => {
      rows.value = found;
    },
  );
  await readSaved();
  if (facts.analysis.running) await watchAnalysis();
}

export async function readSaved(): Promise<void> {
  saved.value = (await api.selections()).selections;
}

/** Follow the analysis that the server computes, and read the store again when it is there. */
export async function watchAnalysis(): Promise<void> {
  do {
    await new Promise((done) => setTimeout(done, 500));
    analysis.value = await api.analysis();
  } while (analysis.value.state === "running");
  if (analysis.value.state === "done") {
    placesOf.clear();
    columnOf.clear();
    forgetAnswers();
    store.value = await api.store();
  }
}

/** What the points are coloured by: the view's column, else the clusters, else the first category. */
export const colourColumn = computed<string | null>(() => {
  const names = columns.value.map((c) => c.name);
  if (names.includes(view.colour.value)) return view.colour.value;
  const first = columns.value.find((c) => c.type === "category") ?? columns.value[0];
  return ofAnalysis("cluster") ?? (names.includes("label") ? "label" : null) ?? first?.name ?? null;
});

/** The rank of each category of the column in front, which says its colour: of clusters the suspects first. */
export const ranks = computed<number[]>(() => {
  const facts = column.value?.facts;
  if (facts?.type !== "category") return [];
  // codes of the column of clusters are their labels
  const suspects = new Map((clusters.value ?? []).map((c, i) => [c.label, i]));
  const key = (code: number) => (facts.name === ofAnalysis("cluster") ? (suspects.get(code) ?? Infinity) : 0);
  const codes = facts.categories.map((_, code) => code).sort((a, b) => key(a) - key(b) || a - b);
  const found: number[] = [];
  codes.forEach((code, rank) => {
    found[code] = rank;
  });
  return found;
});
