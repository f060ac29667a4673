/** The canvas of the map, kept true to the view: what changes is sent to the card once, and a frame is drawn for it. */

import { effect, signal } from "@preact/signals";
import * as data from "./data";
import { box } from "./geometry";
import { ENTRIES, MISSING, table } from "./palette";
import { type Camera, Scatter, State } from "./scatter";
import { dark } from "./theme";
import * as view from "./view";

/** How long after the last movement a thinned map is drawn whole again, in milliseconds. */
const SETTLE = 140;
const ZOOMS = [0.3, 4000] as const;

/** What the page measured: how long the last frame took until it was drawn, in milliseconds. */
export interface Frame {
  milliseconds: number;
  points: number;
  renderer: string;
}

export const frame = signal<Frame | null>(null);
export const metered = signal(false);

export class Stage {
  private readonly scatter: Scatter;
  private readonly undo: (() => void)[] = [];
  private uploaded: { xy: Float32Array; count: number } | null = null;
  private requested = 0;
  private settled = 0;
  /** In pixels of the page. */
  readonly size = signal({ width: 1, height: 1 });

  constructor(private readonly canvas: HTMLCanvasElement) {
    this.scatter = new Scatter(canvas);
    const observer = new ResizeObserver(() => this.fit());
    observer.observe(canvas);
    this.undo.push(
      () => observer.disconnect(),
      effect(() => this.upload(data.points.value)),
      effect(() => this.recolour(data.column.value, data.ranks.value, dark.value)),
      effect(() => this.restate(data.picked.value, data.passing.value)),
      effect(() => this.moved(view.camera.value)),
    );
  }

  dispose(): void {
    cancelAnimationFrame(this.requested);
    clearTimeout(this.settled);
    for (const undo of this.undo) undo();
  }

  /** From pixels of the canvas to the plane of the map. */
  toPlane(px: number, py: number, camera: Camera = view.camera.peek()): [number, number] {
    const { width, height } = this.size.peek();
    const unit = (camera.zoom * Math.min(width, height)) / 2;
    return [camera.x + (px - width / 2) / unit, camera.y - (py - height / 2) / unit];
  }

  /** How many pixels one unit of the plane takes, and where its origin lies; for what is laid over the canvas. */
  projection(): { unit: number; left: number; top: number } {
    const { width, height } = this.size.value;
    const { x, y, zoom } = view.camera.value;
    const unit = (zoom * Math.min(width, height)) / 2;
    return { unit, left: width / 2 - x * unit, top: height / 2 + y * unit };
  }

  /** Zoom by a factor about a place of the canvas, by default its middle. */
  zoom(factor: number, px?: number, py?: number): void {
    const { width, height } = this.size.peek();
    const [atX, atY] = [px ?? width / 2, py ?? height / 2];
    const old = view.camera.peek();
    const zoom = Math.min(Math.max(old.zoom * factor, ZOOMS[0]), ZOOMS[1]);
    const [x, y] = this.toPlane(atX, atY);
    const [nx, ny] = this.toPlane(atX, atY, { ...old, zoom });
    view.camera.value = { x: old.x + x - nx, y: old.y + y - ny, zoom };
  }

  pan(dx: number, dy: number): void {
    const { x, y, zoom } = view.camera.peek();
    const [ax, ay] = this.toPlane(0, 0);
    const [bx, by] = this.toPlane(dx, dy);
    view.camera.value = { x: x - (bx - ax), y: y - (by - ay), zoom };
  }

  /** Bring the samples in front into sight. */
  zoomToRows(): void {
    const xy = data.points.peek()?.xy;
    if (!xy) return;
    const seen: number[] = [];
    for (const row of data.rows.peek()) {
      if (Math.abs(xy[2 * row]!) <= 1) seen.push(xy[2 * row]!, xy[2 * row + 1]!);
    }
    if (!seen.length) return;
    const [left, low, right, high] = box(seen);
    const { width, height } = this.size.peek();
    const side = Math.min(width, height);
    const zoom = Math.min(
      (1.7 * width) / side / (right - left || 1e-3),
      (1.7 * height) / side / (high - low || 1e-3),
      40,
    );
    view.camera.value = { x: (left + right) / 2, y: (low + high) / 2, zoom };
  }

  /** Draw whole frames one after the other; the milliseconds that each took until it was drawn. */
  measure(frames: number): number[] {
    this.draw(false, true);
    return Array.from({ length: frames }, () => {
      this.draw(false, true);
      return frame.peek()!.milliseconds;
    });
  }

  /** The map as it is seen, as a PNG. */
  async picture(): Promise<Blob> {
    this.draw(false, false);
    return new Promise((done, failed) =>
      this.canvas.toBlob(
        (blob) => (blob ? done(blob) : failed(new Error("The picture could not be made."))),
        "image/png",
      ),
    );
  }

  private draw(moving: boolean, timed: boolean): void {
    const start = performance.now();
    this.scatter.draw(view.camera.peek(), moving);
    if (!timed) return;
    this.scatter.finish();
    const renderer = frame.peek()?.renderer ?? this.scatter.renderer;
    frame.value = { milliseconds: performance.now() - start, points: this.uploaded?.count ?? 0, renderer };
  }

  private invalidate(moving = false): void {
    cancelAnimationFrame(this.requested);
    this.requested = requestAnimationFrame(() => this.draw(moving, metered.peek()));
  }

  private moved(_camera: Camera): void {
    this.invalidate(true);
    clearTimeout(this.settled);
    this.settled = window.setTimeout(() => this.invalidate(), SETTLE);
  }

  private fit(): void {
    const { clientWidth: width, clientHeight: height } = this.canvas;
    this.canvas.width = Math.max(Math.round(width * devicePixelRatio), 1);
    this.canvas.height = Math.max(Math.round(height * devicePixelRatio), 1);
    this.size.value = { width: Math.max(width, 1), height: Math.max(height, 1) };
    this.draw(false, false); // at once: a resized canvas is blank
  }

  private upload(points: { xy: Float32Array; count: number } | null): void {
    if (!points) return;
    const same = this.uploaded?.xy === points.xy;
    if (!same) this.scatter.resize(points.xy.length / 2);
    this.scatter.places(points.xy, same ? this.uploaded!.count : 0, points.count);
    this.uploaded = points;
    if (!same) {
      this.recolour(data.column.peek(), data.ranks.peek(), dark.peek());
      this.restate(data.picked.peek(), data.passing.peek());
    }
    this.invalidate();
  }

  private recolour(column: data.Column | null, ranks: number[], isDark: boolean): void {
    this.scatter.palette(table(column?.facts.type ?? "category", isDark));
    if (this.uploaded) this.scatter.colours(entries(column, ranks, this.uploaded.xy.length / 2));
    this.invalidate();
  }

  private restate(picked: Uint8Array | null, passing: Uint8Array | null): void {
    if (!this.uploaded) return;
    const states = new Uint8Array(this.uploaded.xy.length / 2);
    for (let i = 0; i < states.length; i++) {
      states[i] =
        passing && !passing[i] ? State.filtered : !picked ? State.plain : picked[i] ? State.selected : State.dim;
    }
    this.scatter.states(states);
    this.invalidate();
  }
}

/** The entry of the palette that each of n points takes. */
function entries(column: data.Column | null, ranks: number[], n: number): Uint8Array {
  const found = new Uint8Array(n).fill(MISSING);
  if (!column) return found;
  const { facts, values } = column;
  const [low, high] = facts.type === "number" ? range(facts) : [0, 0];
  for (let i = 0; i < n; i++) {
    const value = values[i]!;
    if (facts.type === "category") {
      if (value >= 0) found[i] = (ranks[value] ?? value) % ENTRIES;
    } else if (!Number.isNaN(value)) {
      found[i] = Math.min(Math.max((value - low) / (high - low || 1), 0), 1) * (ENTRIES - 1);
    }
  }
  return found;
}

/** Between which numbers the colours run: without the outermost hundredths, that a few outliers do not take them all. */
export function range(facts: {
  quantiles: (number | null)[];
  low: number | null;
  high: number | null;
}): [number, number] {
  const [low, high] = [facts.quantiles[0] ?? facts.low ?? 0, facts.quantiles.at(-1) ?? facts.high ?? 1];
  return low < high ? [low, high] : [facts.low ?? 0, facts.high ?? 1];
}
