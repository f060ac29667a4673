/** What the page shows, each part a signal; all of it is in the address after `#`, so that a link reopens it. */

import { type Signal, effect, signal } from "@preact/signals";
import type { Camera } from "./scatter";
import { type Step, read, written } from "./steps";
import type { LiveQuestion } from "./types";

export type Tab = "clusters" | "samples" | "spectrum" | "flipping" | "saved";
export type DetailTab = "relevance" | "ledger" | "flipping" | "facts";
export type Layout = "rows" | "tiles";

export const WHOLE: Camera = { x: 0, y: 0, zoom: 0.94 };

export const explanation = signal("");
export const map = signal("");
export const colour = signal("");
export const filter = signal("");
export const steps = signal<Step[]>([]);
export const tab = signal<Tab | "">("");
export const sample = signal<number | null>(null);
export const detail = signal<DetailTab>("relevance");
export const live = signal<LiveQuestion[]>([]);
export const layout = signal<Layout>("rows");
export const order = signal("");
export const page = signal(0);
export const shared = signal(true);
export const camera = signal<Camera>(WHOLE);

interface Field {
  key: string;
  /** Whether a change is a step that the browser's Back undoes. */
  stop: boolean;
  write(): string;
  read(text: string): void;
}

function field<V>(
  key: string,
  value: Signal<V>,
  write: (value: V) => string,
  read: (text: string) => V,
  stop = false,
): Field {
  const initial = value.peek();
  return {
    key,
    stop,
    write: () => write(value.value),
    read: (text) => {
      value.value = text ? read(text) : initial;
    },
  };
}

const asIs = (text: string) => text;

const FIELDS: Field[] = [
  field("e", explanation, asIs, asIs),
  field("m", map, asIs, asIs),
  field("c", colour, asIs, asIs),
  field("q", filter, asIs, asIs),
  field("s", steps, written, read, true),
  field("t", tab, asIs, (text) => text as Tab, true),
  field("r", sample, (row) => (row === null ? "" : String(row)), Number, true),
  field(
    "d",
    detail,
    (value) => (value === "relevance" ? "" : value),
    (text) => text as DetailTab,
  ),
  field("x", live, (asked) => (asked.length ? JSON.stringify(asked) : ""), questions),
  field(
    "w",
    layout,
    (value) => (value === "rows" ? "" : value),
    (text) => text as Layout,
  ),
  field("o", order, asIs, asIs),
  field(
    "p",
    page,
    (value) => (value ? String(value + 1) : ""),
    (text) => Math.max(Number(text) - 1, 0) || 0,
  ),
  field(
    "h",
    shared,
    (value) => (value ? "" : "own"),
    (text) => text !== "own",
  ),
  field("v", camera, seen, look),
];

function seen({ x, y, zoom }: Camera): string {
  const whole = x === WHOLE.x && y === WHOLE.y && zoom === WHOLE.zoom;
  return whole ? "" : [x, y, zoom].map((v) => Number(v.toPrecision(5))).join(",");
}

function look(text: string): Camera {
  const [x, y, zoom] = text.split(",").map(Number);
  return [x, y, zoom].every(Number.isFinite) && zoom! > 0 ? { x: x!, y: y!, zoom: zoom! } : WHOLE;
}

function questions(text: string): LiveQuestion[] {
  try {
    const asked: unknown = JSON.parse(text);
    return Array.isArray(asked) ? asked.filter((one) => typeof one?.method === "string").slice(0, 8) : [];
  } catch {
    return [];
  }
}

/** A value in the address: what must be escaped is, but not what reads well. */
function escaped(text: string): string {
  return encodeURIComponent(text).replace(/%(2C|3B|7E|3A|2B)/g, decodeURIComponent);
}

function address(fields: Field[]): string {
  const given = fields.map(({ key, write }) => [key, write()] as const).filter(([, text]) => text);
  return given.map(([key, text]) => `${key}=${escaped(text)}`).join("&");
}

function readAddress(): void {
  const parts = location.hash
    .slice(1)
    .split("&")
    .map((part) => /^(\w+)=(.*)$/.exec(part));
  const given = new Map(parts.filter((found) => found !== null).map(([, key, text]) => [key!, text!]));
  for (const { key, read } of FIELDS) {
    try {
      read(decodeURIComponent(given.get(key) ?? ""));
    } catch {
      read(""); // a link that was cut off in the middle of an escape
    }
  }
}

const STOPS = FIELDS.filter((f) => f.stop);
/** All but the camera, which changes many times a second while the map moves. */
const STILL = FIELDS.filter((f) => f.key !== "v");
const PAUSE = 150; // milliseconds without movement before the camera is written

/** Take the view from the address, and keep the address true from then on. */
export function follow(): void {
  readAddress();
  let [stops, still] = [address(STOPS), address(STILL)];
  let timer = 0;
  const write = () => {
    const before = stops;
    [stops, still] = [address(STOPS), address(STILL)];
    const target = `${location.pathname}#${address(FIELDS)}`;
    if (target === location.pathname + (location.hash || "#")) return;
    if (stops === before) history.replaceState(null, "", target);
    else history.pushState(null, "", target);
  };
  addEventListener("popstate", () => {
    readAddress();
    [stops, still] = [address(STOPS), address(STILL)];
  });
  effect(() => {
    void camera.value; // followed too, but without haste
    const quiet = address(STILL) === still;
    clearTimeout(timer);
    if (quiet) timer = window.setTimeout(write, PAUSE);
    else queueMicrotask(write);
  });
}
