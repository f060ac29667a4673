/** Plane geometry of the map: points lie in [-1, 1] x [-1, 1], as x0, y0, x1, y1, ... */

/** Marks with 1 the points inside a polygon (even-odd rule). */
export function inside(points: Float32Array, polygon: readonly number[]): Uint8Array {
  const n = points.length / 2;
  const found = new Uint8Array(n);
  const [left, low, right, high] = box(polygon);
  for (let i = 0; i < n; i++) {
    const x = points[2 * i]!;
    const y = points[2 * i + 1]!;
    if (x >= left && x <= right && y >= low && y <= high && contains(polygon, x, y)) found[i] = 1;
  }
  return found;
}

export function contains(polygon: readonly number[], x: number, y: number): boolean {
  let odd = false;
  for (let i = 0, j = polygon.length - 2; i < polygon.length; j = i, i += 2) {
    const [xi, yi, xj, yj] = [polygon[i]!, polygon[i + 1]!, polygon[j]!, polygon[j + 1]!];
    if (yi > y !== yj > y && x < ((xj - xi) * (y - yi)) / (yj - yi) + xi) odd = !odd;
  }
  return odd;
}

/** The smallest box around points: left, low, right, high. */
export function box(points: ArrayLike<number>): [number, number, number, number] {
  const found: [number, number, number, number] = [Infinity, Infinity, -Infinity, -Infinity];
  for (let i = 0; i < points.length; i += 2) {
    found[0] = Math.min(found[0], points[i]!);
    found[1] = Math.min(found[1], points[i + 1]!);
    found[2] = Math.max(found[2], points[i]!);
    found[3] = Math.max(found[3], points[i + 1]!);
  }
  return found;
}

/** The kept point that is nearest to a place and no farther than `reach`, or -1. */
export function nearest(points: Float32Array, kept: Uint8Array | null, x: number, y: number, reach: number): number {
  let best = -1;
  let least = reach * reach;
  for (let i = 0; 2 * i < points.length; i++) {
    const dx = points[2 * i]! - x;
    const dy = points[2 * i + 1]! - y;
    const distance = dx * dx + dy * dy;
    if (distance <= least && (kept === null || kept[i])) {
      least = distance;
      best = i;
    }
  }
  return best;
}

/** The line with fewer points that stays within `tolerance` of the drawn one (Ramer, Douglas and Peucker). */
export function simplified(line: readonly number[], tolerance: number): number[] {
  const last = line.length / 2 - 1;
  if (last < 2) return [...line];
  let [far, distance] = [0, tolerance];
  for (let i = 1; i < last; i++) {
    const d = offset(line, i, last);
    if (d > distance) [far, distance] = [i, d];
  }
  if (far === 0) return [...line.slice(0, 2), ...line.slice(2 * last)];
  const head = simplified(line.slice(0, 2 * far + 2), tolerance);
  return [...head.slice(0, -2), ...simplified(line.slice(2 * far), tolerance)];
}

/** How far point i lies from the segment between the first and the last. */
function offset(line: readonly number[], i: number, last: number): number {
  const [ax, ay] = [line[0]!, line[1]!];
  const [dx, dy] = [line[2 * last]! - ax, line[2 * last + 1]! - ay];
  const [px, py] = [line[2 * i]! - ax, line[2 * i + 1]! - ay];
  const length = dx * dx + dy * dy;
  const along = length ? Math.min(Math.max((px * dx + py * dy) / length, 0), 1) : 0;
  return Math.hypot(px - along * dx, py - along * dy);
}
