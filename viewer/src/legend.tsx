/** What the colours of the points mean; a category's entry selects its samples. */

import { useSignal } from "@preact/signals";
import * as data from "./data";
import { integer, number } from "./format";
import { category, css, sequential } from "./palette";
import { range } from "./stage";
import { dark } from "./theme";
import * as view from "./view";

const SHOWN = 200;

export function Legend() {
  const open = useSignal(!matchMedia("(max-width: 760px)").matches);
  const column = data.column.value;
  if (!column) return null;
  const { facts } = column;
  return (
    <details class="legend" open={open.value} onToggle={(e) => (open.value = e.currentTarget.open)}>
      <summary>{facts.title}</summary>
      {facts.type === "category" ? <Categories column={column} /> : <Range column={column} />}
    </details>
  );
}

function Categories({ column: { facts } }: { column: data.Column }) {
  const ranks = data.ranks.value;
  const codes = facts.categories.map((_, code) => code).sort((a, b) => ranks[a]! - ranks[b]!);
  return (
    <ul>
      {codes.slice(0, SHOWN).map((code) => (
        <li key={code}>
          <button
            title="Select these; with Shift, add them"
            onClick={(event) => select({ kind: "category", column: facts.name, code }, event.shiftKey)}
          >
            <i class="swatch" style={{ background: css(category(ranks[code]!, dark.value)) }} />
            <span class="name">{facts.categories[code]}</span>
            <span class="faint">{integer(facts.counts[code] ?? 0)}</span>
          </button>
        </li>
      ))}
      {codes.length > SHOWN && <li class="faint">and {integer(codes.length - SHOWN)} more</li>}
    </ul>
  );
}

function Range({ column: { facts } }: { column: data.Column }) {
  const [low, high] = range(facts);
  const stops = Array.from({ length: 9 }, (_, i) => css(sequential(i / 8, dark.value)));
  return (
    <div class="range">
      <i style={{ background: `linear-gradient(to right, ${stops.join(", ")})` }} />
      <span>{number(low)}</span>
      <span>{number(high)}</span>
    </div>
  );
}

/** Put a step in front, or add it to those that are there. */
export function select(step: (typeof view.steps.value)[number], add = false): void {
  view.steps.value = add ? [...view.steps.value, step] : [step];
  view.sample.value = null;
  view.page.value = 0;
}
