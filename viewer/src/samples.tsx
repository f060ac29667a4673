/** The samples in front, a page at a time: input, heatmap and overlay of each on a shared scale. */

import { computed } from "@preact/signals";
import { useAnswer } from "./answers";
import * as api from "./api";
import * as data from "./data";
import { count, integer, named, number, short } from "./format";
import { ColourBar, Heat, type Source, aspects, isPicture } from "./heat";
import { Icon } from "./icon";
import type { ExplanationFacts, Sample } from "./types";
import * as view from "./view";

export const PER_PAGE = { rows: 20, tiles: 60 } as const;

export const pages = computed(() => Math.max(Math.ceil(data.rows.value.length / PER_PAGE[view.layout.value]), 1));
/** The rows of the page in front. */
export const onPage = computed(() => {
  const size = PER_PAGE[view.layout.value];
  const page = Math.min(view.page.value, pages.value - 1);
  return [...data.rows.value.subarray(page * size, (page + 1) * size)];
});

export function Samples() {
  const explanation = data.explanation.value;
  const rows = onPage.value;
  const key = rows.join(",");
  const { value: found, error } = useAnswer(`samples ${key}`, () => api.samples(rows));
  const scaled = view.shared.value && explanation !== null && rows.length > 0;
  const scale = useAnswer(scaled ? `scale ${explanation.name} ${key}` : null, () => api.scale(rows, explanation!.name));
  const waiting = scaled && scale.value === null && scale.error === null;
  if (!explanation) return null;
  const byRow = new Map((found ?? []).map((sample) => [sample.row, sample]));
  return (
    <>
      <Bar limit={scale.value} explanation={explanation} />
      {error && (
        <p class="error" role="alert">
          {error}
        </p>
      )}
      {rows.length === 0 && <p class="empty">No sample is in front: change the filter or the selection.</p>}
      {view.layout.value === "rows" || !fitsTiles(explanation) ? (
        <ol class="samples" aria-label="Samples">
          {rows.map((row) => (
            <Row
              key={row}
              row={row}
              sample={byRow.get(row) ?? null}
              explanation={explanation}
              limit={scale.value}
              waiting={waiting}
            />
          ))}
        </ol>
      ) : (
        <ol class="tiles" aria-label="Samples">
          {rows.map((row) => (
            <Tile
              key={row}
              row={row}
              sample={byRow.get(row) ?? null}
              explanation={explanation}
              limit={scale.value}
              waiting={waiting}
            />
          ))}
        </ol>
      )}
      <Pager />
    </>
  );
}

/** Whether a sample can be told in a small picture; texts and tables cannot. */
function fitsTiles({ kind }: ExplanationFacts): boolean {
  return kind !== "text" && kind !== "table";
}

function Bar({ limit, explanation }: { limit: number | null; explanation: ExplanationFacts }) {
  const numbers = data.columns.value.filter((c) => c.type === "number");
  const tiled = view.layout.value === "tiles";
  return (
    <div class="bar-of-list">
      <label>
        Order{" "}
        <select
          value={view.order.value}
          onChange={(e) => ((view.order.value = e.currentTarget.value), (view.page.value = 0))}
        >
          <option value="">as stored</option>
          {numbers.map((c) => (
            <>
              <option key={`-${c.name}`} value={`-${c.name}`}>
                {c.title}, largest first
              </option>
              <option key={c.name} value={c.name}>
                {c.title}, smallest first
              </option>
            </>
          ))}
        </select>
      </label>
      <label title="One scale for all samples of the page, so that their strengths can be compared">
        <input
          type="checkbox"
          checked={view.shared.value}
          onChange={(e) => (view.shared.value = e.currentTarget.checked)}
        />{" "}
        shared scale
      </label>
      {fitsTiles(explanation) && (
        <button
          class="tool"
          aria-pressed={tiled}
          title="Small pictures of many samples"
          aria-label="Tiles"
          onClick={() => {
            view.layout.value = tiled ? "rows" : "tiles";
            view.page.value = 0;
          }}
        >
          <Icon d="M4 4h6v6H4zM14 4h6v6h-6zM4 14h6v6H4zM14 14h6v6h-6z" />
        </button>
      )}
      <ColourBar limit={limit} />
    </div>
  );
}

interface Shown {
  row: number;
  sample: Sample | null;
  explanation: ExplanationFacts;
  limit: number | null;
  /** Whether the scale is not yet known. */
  waiting: boolean;
}

function sourceOf({ row, explanation, limit, waiting }: Shown): Source {
  return { of: "sample", row, explanation: explanation.name, kind: explanation.kind, limit, waiting };
}

function Row(shown: Shown) {
  const { row, sample, explanation } = shown;
  const own = sample?.explanations[explanation.name];
  const valid = sample?.valid !== false;
  return (
    <li class={isPicture(explanation.kind) ? "sample" : "sample drawn"}>
      <button
        class="open"
        data-row={row}
        aria-label={`Open sample ${sample?.id ?? row}`}
        onClick={() => (view.sample.value = row)}
      >
        {valid ? (
          <span class="pictures">
            {(isPicture(explanation.kind) ? aspects(explanation.kind) : ["overlay" as const]).map((aspect) => (
              <Heat key={aspect} source={sourceOf(shown)} aspect={aspect} size="small" />
            ))}
          </span>
        ) : (
          <span class="error">{sample?.error ?? "not explained"}</span>
        )}
        <span class="facts">
          <b title={sample?.id}>{sample ? short(sample.id) : row}</b>
          {sample?.label && <span>{named(sample.label)}</span>}
          {own?.target && (
            <span class={sample?.label && own.target.value !== sample.label.value ? "differs" : "faint"}>
              → {named(own.target)}
            </span>
          )}
          {own?.output !== null && <span class="faint">output {number(own?.output)}</span>}
        </span>
      </button>
    </li>
  );
}

function Tile(shown: Shown) {
  const { row, sample } = shown;
  const aspect = data.store.value?.inputs ? "overlay" : "heatmap";
  return (
    <li>
      <button
        data-row={row}
        title={sample?.id ?? String(row)}
        aria-label={`Open sample ${sample?.id ?? row}`}
        onClick={() => (view.sample.value = row)}
      >
        {sample?.valid === false ? "–" : <Heat source={sourceOf(shown)} aspect={aspect} size="small" />}
      </button>
    </li>
  );
}

function Pager() {
  const page = Math.min(view.page.value, pages.value - 1);
  const turn = (to: number) => {
    view.page.value = to;
    document.querySelector(".panel-body")?.scrollTo(0, 0);
  };
  if (pages.value < 2) return null;
  return (
    <nav class="pager" aria-label="Pages">
      <button disabled={page === 0} onClick={() => turn(page - 1)}>
        Previous
      </button>
      <span>
        page {integer(page + 1)} of {integer(pages.value)}
      </span>
      <button disabled={page + 1 >= pages.value} onClick={() => turn(page + 1)}>
        Next
      </button>
    </nav>
  );
}

/** The sample that lies so many places further among those in front, its page with it. */
export function go(by: number): void {
  const rows = data.rows.peek();
  if (!rows.length) return;
  const at = view.sample.peek() === null ? -1 : rows.indexOf(view.sample.peek()!);
  const to = at < 0 ? (by > 0 ? 0 : rows.length - 1) : Math.min(Math.max(at + by, 0), rows.length - 1);
  view.sample.value = rows[to]!;
  view.page.value = Math.floor(to / PER_PAGE[view.layout.peek()]);
}

export function inFront(): string {
  const n = data.rows.value.length;
  const all = data.store.value?.n ?? 0;
  if (data.picked.value) return `${count(n, "sample")} selected`;
  return data.passing.value ? `${integer(n)} of ${count(all, "sample")}` : count(all, "sample");
}
