/** What keys do, wherever no text is being written. */

import * as data from "./data";
import { helping } from "./help";
import { lassoing, stage } from "./map";
import { PER_PAGE, go, pages } from "./samples";
import { metered } from "./stage";
import { turn } from "./theme";
import * as view from "./view";

/** The rows of the list that one key press down passes: one, or in tiles those of a line. */
function line(): number {
  const tiles = document.querySelector<HTMLElement>(".tiles");
  return tiles ? getComputedStyle(tiles).gridTemplateColumns.split(" ").length : 1;
}

function page(by: number): void {
  view.page.value = Math.min(Math.max(view.page.value + by, 0), pages.value - 1);
}

const tab = (name: view.Tab) => () => {
  view.sample.value = null;
  view.tab.value = name;
};

/** Undo the last of: a lasso begun, a sample opened, a selection, a filter. */
function back(): void {
  if (lassoing.value) lassoing.value = false;
  else if (view.sample.value !== null) view.sample.value = null;
  else if (view.steps.value.length) view.steps.value = [];
  else view.filter.value = "";
}

function open(): void {
  const size = PER_PAGE[view.layout.value];
  const first = data.rows.value[view.page.value * size];
  if (view.sample.value === null && first !== undefined) view.sample.value = first;
}

const KEYS: Record<string, () => void> = {
  ArrowRight: () => go(1),
  ArrowLeft: () => go(-1),
  ArrowDown: () => go(line()),
  ArrowUp: () => go(-line()),
  Enter: open,
  Escape: back,
  l: () => (lassoing.value = !lassoing.value),
  "/": () => document.getElementById("filter")?.focus(),
  "?": () => (helping.value = true),
  "1": tab("clusters"),
  "2": tab("samples"),
  "3": tab("spectrum"),
  "4": tab("flipping"),
  "5": tab("saved"),
  "+": () => stage.value?.zoom(1.6),
  "=": () => stage.value?.zoom(1.6),
  "-": () => stage.value?.zoom(1 / 1.6),
  "0": () => (view.camera.value = view.WHOLE),
  z: () => stage.value?.zoomToRows(),
  "[": () => page(-1),
  "]": () => page(1),
  t: turn,
  m: () => (metered.value = !metered.value),
};

const WRITING = "input:not([type=checkbox], [type=range]), textarea, select";

export function listenToKeys(): void {
  addEventListener("keydown", (event) => {
    const target = event.target as HTMLElement;
    if (target.closest("dialog") || event.ctrlKey || event.metaKey || event.altKey) return;
    if (target.matches(WRITING)) {
      if (event.key === "Escape") target.blur();
      return;
    }
    if (event.key === "Enter" && target.matches("button, a, summary, input")) return;
    const act = KEYS[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!act) return;
    event.preventDefault();
    act();
  });
}
