/** What the server answers; rows are places in the store, text from data is plain text. */

export type Kind = "image" | "spectrogram" | "video" | "series" | "text" | "table";

export interface ExplanationFacts {
  name: string;
  method: string;
  composite: string | null;
  target: string;
  analysis: boolean;
  kind: Kind;
  shape: number[];
  frames: number;
  /** The inputs of the model that have relevance, the one that lists show first. */
  parts: Part[];
}

export interface Part {
  name: string;
  kind: Kind;
}

export interface ColumnName {
  name: string;
  title: string;
  type: "category" | "number" | "text";
}

export interface Tile {
  title: string;
  x: number;
  y: number;
  width: number;
  height: number;
  n: number;
}

export interface MapFacts {
  name: string;
  title: string;
  explanation: string;
  tiles: Tile[];
}

export interface MethodFacts {
  name: string;
  abbreviation: string;
  family: string;
  rules: boolean;
}

export interface StoreFacts {
  title: string;
  n: number;
  complete: boolean;
  notices: string[];
  read_only: boolean;
  versions: Record<string, string>;
  explanations: ExplanationFacts[];
  kind: Kind;
  inputs: boolean;
  classes: string[];
  columns: ColumnName[];
  maps: MapFacts[];
  model: { name: string; same: boolean; methods: MethodFacts[]; composites: string[]; outputs: number | null } | null;
  analysis: { running: boolean; can_run: boolean };
  filter_help: string[];
}

export interface ColumnFacts {
  name: string;
  title: string;
  type: "category" | "number";
  categories: string[];
  counts: number[];
  low: number | null;
  high: number | null;
  quantiles: (number | null)[];
  missing: number;
}

export interface Named {
  value: number | string;
  title: string;
}

export interface Sample {
  row: number;
  id: string;
  valid: boolean;
  error: string | null;
  label: Named | null;
  explanations: Record<string, { output: number | null; target: Named | null; delta: number | null }>;
  cluster: number | null;
  group: string | number | null;
  group_title: string | null;
  outlier: number | null;
  columns?: Record<string, string | number | boolean | null>;
  neighbours?: { row: number; distance: number }[];
}

export interface Cluster {
  label: number;
  group: string | number | null;
  group_title: string;
  size: number;
  share: number;
  separation: number;
  suspect: number | null;
  total: number;
  representatives: number[];
}

export interface SpectrumGroup {
  group: string | number | null;
  title: string;
  size: number;
  eigenvalues: number[];
  gap: number;
  residual: number;
  suspicion: number;
}

export interface AnalysisState {
  state: "none" | "running" | "done" | "failed";
  stage: string;
  done: number;
  total: number;
  seconds: number;
  message: string | null;
}

export interface SeriesValues {
  kind: "series";
  names: string[];
  rate: number | null;
  step: number;
  signal: (number | null)[][] | null;
  relevance: (number | null)[][];
  limit: number;
}

export interface TextValues {
  kind: "text";
  tokens: string[];
  relevance: (number | null)[];
  limit: number;
}

export interface TableValues {
  kind: "table";
  names: string[];
  values: (number | string | null)[] | null;
  relevance: (number | null)[];
  limit: number;
}

export type Values = SeriesValues | TextValues | TableValues;

export type LiveTarget = null | number | { kind: string; c?: number; a?: number; b?: number };

export interface LiveQuestion {
  method: string;
  composite: string | null;
  target: LiveTarget;
}

export interface LiveAnswer {
  key: string;
  row: number;
  method: string;
  composite: string | null;
  output: number | null;
  target: Named | null;
  delta: number | null;
  limit: number;
  seconds: number;
  sources: string[];
  prediction: { class: number; title: string; score: number }[];
}

export interface LedgerRow {
  layer: string;
  operator: string;
  rule: string;
  incoming: number | null;
  outgoing: number | null;
  absorbed: Record<string, number | null>;
  unexplained: number | null;
}

export interface Ledger {
  rows: LedgerRow[];
  output: number | null;
  unexplained: number | null;
  causes: Record<string, number | null>;
  notice: string | null;
}

export interface Flipping {
  fractions: number[];
  curves: {
    order: "most" | "least" | "random";
    curve: (number | null)[];
    low: (number | null)[] | null;
    high: (number | null)[] | null;
    area: number | null;
  }[];
  output: number | null;
  what: string;
  n: number;
}

export interface SelectionFacts {
  name: string;
  n: number;
  note: string;
  saved: string;
  revision: number;
}
