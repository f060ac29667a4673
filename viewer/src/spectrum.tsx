/** The eigenvalues of each group's graph: the gap tells how many strategies there are. */

import { useSignal } from "@preact/signals";
import { useAnswer } from "./answers";
import * as api from "./api";
import { Chart } from "./chart";
import * as data from "./data";
import { count, integer, number } from "./format";
import type { SpectrumGroup } from "./types";

const AT_ONCE = 12;

export function Spectrum() {
  const explanation = data.explanation.value;
  const most = useSignal(AT_ONCE);
  const key = explanation?.analysis ? `spectrum ${explanation.name}` : null;
  const { value, error } = useAnswer(key, () => api.spectrum(explanation!.name));
  if (!explanation?.analysis) return <p class="empty">The spectrum belongs to the analysis: see Clusters.</p>;
  if (error)
    return (
      <p class="error" role="alert">
        {error}
      </p>
    );
  if (!value)
    return (
      <p class="empty" aria-busy="true">
        Reading the spectrum…
      </p>
    );
  return (
    <>
      <p class="lead">
        The lowest eigenvalues of the Laplacian of each group's graph of neighbours. After as many as there are clusters
        they jump: the eigengap. The most suspicious group comes first.
      </p>
      <div class="spectra">
        {value.groups.slice(0, most.value).map((group) => (
          <Group key={String(group.group)} group={group} />
        ))}
      </div>
      {value.groups.length > most.value && (
        <button class="more" onClick={() => (most.value += AT_ONCE)}>
          {integer(value.groups.length - most.value)} more
        </button>
      )}
    </>
  );
}

function Group({ group }: { group: SpectrumGroup }) {
  const title = group.title || "all samples";
  const numbers = group.eigenvalues.map((_, i) => i + 1);
  const [below, above] = [group.eigenvalues[group.gap - 1], group.eigenvalues[group.gap]];
  return (
    <figure>
      <figcaption>
        <b>{title}</b>{" "}
        <span class="faint">
          {count(group.size, "sample")}, eigengap after {group.gap}
          {below !== undefined && above !== undefined && ` (${number(below)} to ${number(above)})`}
        </span>
      </figcaption>
      {numbers.length > 0 ? (
        <Chart
          title={`Eigenvalues of ${title}`}
          xTitle="number of the eigenvalue"
          yTitle="eigenvalue"
          ticks={4}
          curves={[{ name: title, look: "eigen", x: numbers, y: group.eigenvalues, dots: true }]}
        >
          {(x, y, bottom) =>
            below !== undefined &&
            above !== undefined && (
              <>
                <rect
                  class="gap"
                  x={x(group.gap)}
                  width={x(group.gap + 1) - x(group.gap)}
                  y={10}
                  height={bottom - 10}
                />
                <path class="gap-line" d={`M${x(group.gap)} ${y(below)}L${x(group.gap + 1)} ${y(above)}`} />
              </>
            )
          }
        </Chart>
      ) : (
        <p class="faint">Too few samples for a spectrum.</p>
      )}
    </figure>
  );
}
