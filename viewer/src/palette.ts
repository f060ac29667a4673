/** Colours that stay apart for colour-blind readers, on white and on black. */

export type Colour = readonly [number, number, number];

// Tol's "muted" scheme, its nine colours in an order that keeps neighbours far apart, and one of his "vibrant"
const CATEGORIES = [
  "#CC6677",
  "#332288",
  "#DDCC77",
  "#117733",
  "#88CCEE",
  "#882255",
  "#44AA99",
  "#999933",
  "#AA4499",
  "#EE7733",
];
// viridis, at ten equal steps
const SEQUENCE = [
  "#440154",
  "#482878",
  "#3e4989",
  "#31688e",
  "#26828e",
  "#1f9e89",
  "#35b779",
  "#6ece58",
  "#b5de2b",
  "#fde725",
];

/** The entry for points without a value. */
export const MISSING = 255;
/** The entries that categories or the steps of a number may take. */
export const ENTRIES = 255;

export function rgb(hex: string): Colour {
  const value = parseInt(hex.slice(1), 16);
  return [value >> 16, (value >> 8) & 255, value & 255];
}

export function css([r, g, b]: Colour): string {
  return `rgb(${Math.round(r)} ${Math.round(g)} ${Math.round(b)})`;
}

export function mix(a: Colour, b: Colour, share: number): Colour {
  return [a[0] + (b[0] - a[0]) * share, a[1] + (b[1] - a[1]) * share, a[2] + (b[2] - a[2]) * share];
}

/** The colour at a place in 0 to 1 along anchors that lie at equal steps. */
export function along(anchors: readonly Colour[], place: number): Colour {
  const at = Math.min(Math.max(place, 0), 1) * (anchors.length - 1);
  const below = Math.min(Math.floor(at), anchors.length - 2);
  return mix(anchors[below]!, anchors[below + 1]!, at - below);
}

/** The colour of the category with this rank; after ten the same hues come again, paler and then darker. */
export function category(rank: number, dark: boolean): Colour {
  const own = rgb(CATEGORIES[rank % CATEGORIES.length]!);
  const round = Math.floor(rank / CATEGORIES.length) % 3;
  const shown = round === 0 ? own : mix(own, round === 1 ? [255, 255, 255] : [0, 0, 0], 0.42);
  const light = 0.299 * shown[0] + 0.587 * shown[1] + 0.114 * shown[2];
  if (dark && light < 105) return mix(shown, [255, 255, 255], 0.38);
  if (!dark && light > 190) return mix(shown, [0, 0, 0], 0.18);
  return shown;
}

/** The colour of a number at a place in 0 to 1 of its range. */
export function sequential(place: number, dark: boolean): Colour {
  // the ends that would vanish on the page's ground are left out
  return along(SEQUENCE.map(rgb), dark ? 0.15 + 0.85 * place : 0.93 * place);
}

/** Bytes [256, 4] for the points' shader: one entry a category or step, the last for missing values. */
export function table(kind: "category" | "number", dark: boolean): Uint8Array {
  const bytes = new Uint8Array(4 * 256);
  for (let i = 0; i < ENTRIES; i++) {
    bytes.set(kind === "category" ? category(i, dark) : sequential(i / (ENTRIES - 1), dark), 4 * i);
    bytes[4 * i + 3] = 255;
  }
  bytes.set(dark ? [110, 116, 124, 255] : [150, 156, 164, 255], 4 * MISSING);
  return bytes;
}
