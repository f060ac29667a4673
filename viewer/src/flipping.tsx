/** Flipping curves: how the output falls as the most relevant features are taken away first. */

import { useSignal } from "@preact/signals";
import { useAnswer } from "./answers";
import * as api from "./api";
import { Chart, ChartLegend, type Curve } from "./chart";
import * as data from "./data";
import { count, integer, number } from "./format";
import type { Flipping } from "./types";

const NAMES = { most: "most relevant first", least: "least relevant first", random: "in random order" } as const;
const MOST = 64; // samples at once

function Curves({ flipping }: { flipping: Flipping }) {
  const curves: Curve[] = flipping.curves.map((c) => ({
    name: NAMES[c.order],
    look: `flip-${c.order}`,
    x: flipping.fractions,
    y: c.curve,
    low: c.low,
    high: c.high,
  }));
  return (
    <figure>
      <Chart
        title={`Output while features are flipped: ${flipping.what}`}
        xTitle="share of the features taken away"
        yTitle="output"
        curves={curves}
      />
      <ChartLegend curves={curves} told={(_, i) => `area ${number(flipping.curves[i]!.area)}`} />
      <p class="lead">
        {sentence(flipping.what)} The faster the first curve falls below the random one, the better the explanation
        names what the model uses.
      </p>
    </figure>
  );
}

function sentence(text: string): string {
  return `${text.charAt(0).toUpperCase()}${text.slice(1).replace(/\.?$/, ".")}`;
}

export function FlippingOfSample({ row }: { row: number }) {
  const explanation = data.explanation.value!.name;
  const { value, error } = useAnswer(`flipping ${explanation} ${row}`, (stop) =>
    api.flipping({ rows: [row], explanation }, stop),
  );
  if (error) return <p class="empty">{error}</p>;
  return value ? (
    <Curves flipping={value} />
  ) : (
    <p class="empty" aria-busy="true">
      Taking features away…
    </p>
  );
}

/** The mean over the first of the samples in front. */
export function FlippingOfSelection() {
  const asked = useSignal("");
  const rows = [...data.rows.value.subarray(0, MOST)];
  const explanation = data.explanation.value?.name ?? "";
  const key = `flipping ${explanation} ${rows.join(",")}`;
  const { value, error } = useAnswer(asked.value === key ? key : null, (stop) =>
    api.flipping({ rows, explanation }, stop),
  );
  const all = data.rows.value.length;
  return (
    <>
      <p class="lead">
        Features are taken away, the most relevant first, and the model is asked again: the mean over{" "}
        {all > MOST ? `the first ${MOST} of ${count(all, "sample")}` : count(all, "sample")} in front.
      </p>
      {!data.store.value?.model && (
        <p class="empty">This needs the model: open the store with `headwater view STORE --model … --weights …`.</p>
      )}
      {data.store.value?.model && asked.value !== key && (
        <button class="primary" disabled={!rows.length} onClick={() => (asked.value = key)}>
          Flip {integer(rows.length)}
        </button>
      )}
      {asked.value === key && error && (
        <p class="error" role="alert">
          {error}
        </p>
      )}
      {asked.value === key && !value && !error && (
        <p class="empty" aria-busy="true">
          Taking features away… <button onClick={() => (asked.value = "")}>Stop</button>
        </p>
      )}
      {value && <Curves flipping={value} />}
    </>
  );
}
