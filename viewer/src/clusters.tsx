/** The clusters, most suspicious first, with their mean heatmaps and the samples in their midst. */

import { useSignal } from "@preact/signals";
import * as api from "./api";
import * as data from "./data";
import { count, integer, number, percent } from "./format";
import { Heat, Thumb, isPicture } from "./heat";
import { select } from "./legend";
import { category, css } from "./palette";
import { dark } from "./theme";
import type { Cluster } from "./types";
import * as view from "./view";

const AT_ONCE = 30;
const SHOWN = 5; // representatives beside a mean

export function Clusters() {
  const most = useSignal(AT_ONCE);
  const found = data.clusters.value;
  const column = data.ofAnalysis("cluster");
  if (!data.explanation.value?.analysis) return <Analyze />;
  if (!found)
    return (
      <p class="empty" aria-busy="true">
        Reading the clusters…
      </p>
    );
  const largest = Math.max(...found.map((c) => c.separation));
  const suspects = found.filter((c) => c.suspect !== null).length;
  return (
    <>
      <p class="lead">
        {count(suspects, "cluster")} of less than half their group, the one most unlike the rest of it first: the
        strategies to look at.
      </p>
      <ol class="clusters">
        {found.slice(0, most.value).map((cluster) => (
          <Card key={cluster.label} cluster={cluster} largest={largest} column={column} />
        ))}
      </ol>
      {found.length > most.value && (
        <button class="more" onClick={() => (most.value += AT_ONCE)}>
          {integer(found.length - most.value)} more
        </button>
      )}
    </>
  );
}

interface CardProps {
  cluster: Cluster;
  largest: number;
  /** Where the clusters lie in the store's columns. */
  column: string | null;
}

function Card({ cluster, largest, column }: CardProps) {
  const code = cluster.label; // codes of the column of clusters are their labels
  const explanation = data.explanation.value!;
  const inFront = view.steps.value.some((s) => s.kind === "category" && s.column === column && s.code === code);
  const choose = (event: MouseEvent) => {
    if (column) select({ kind: "category", column, code }, event.shiftKey);
  };
  return (
    <li class={inFront ? "cluster in-front" : "cluster"}>
      <button
        class="mean"
        aria-pressed={inFront}
        aria-label={`Select cluster ${cluster.label} of ${cluster.group_title}, ${count(cluster.size, "sample")}`}
        onClick={choose}
      >
        <Heat
          source={{ of: "cluster", label: cluster.label, explanation: explanation.name, kind: explanation.kind }}
          aspect="heatmap"
          size="small"
        />
      </button>
      <div class="facts">
        <button class="name" onClick={choose}>
          {data.column.value?.facts.name === column && (
            <i class="swatch" style={{ background: css(category(data.ranks.value[code] ?? 0, dark.value)) }} />
          )}
          <b>{cluster.group_title || "all"}</b> <span class="faint">cluster {cluster.label}</span>
          {cluster.suspect !== null && <span class="badge">suspect {cluster.suspect}</span>}
        </button>
        <p>
          {count(cluster.size, "sample")}, {percent(cluster.share)} of {cluster.group === null ? "all" : "the group"}
        </p>
        <p class="separation" title="Separation from the rest of the group: Fisher's discriminant">
          <meter min={0} max={largest} value={cluster.separation} />
          <span>{number(cluster.separation)}</span>
        </p>
        {isPicture(explanation.kind) && (
          <div class="strip">
            {cluster.representatives.slice(0, SHOWN).map((row) => (
              <button key={row} aria-label={`Open sample ${row}`} onClick={() => (view.sample.value = row)}>
                <Thumb row={row} explanation={explanation} />
              </button>
            ))}
          </div>
        )}
      </div>
    </li>
  );
}

/** Without an analysis: what to ask of one, and its progress. */
function Analyze() {
  const by = useSignal("auto");
  const map = useSignal("umap");
  const clustering = useSignal("kmeans");
  const facts = data.store.value!;
  const state = data.analysis.value;
  const running = state?.state === "running";
  const start = async () => {
    const asked = { explanation: data.explanation.value!.name, by: by.value || null, map: map.value || null };
    try {
      data.analysis.value = await api.analyze({
        ...asked,
        clustering: clustering.value,
        clusters: null,
        normalization: null,
      });
      await data.watchAnalysis();
    } catch (error) {
      data.tell(error);
    }
  };
  if (!facts.analysis.can_run)
    return <p class="empty">These explanations were not analyzed: run `headwater spray` on the store.</p>;
  return (
    <form class="analyze" onSubmit={(event) => (event.preventDefault(), void start())}>
      <p class="lead">
        These explanations were not analyzed yet. Spectral relevance analysis clusters the heatmaps: clusters are the
        model's strategies, and one that lies far from the rest of its group is a suspect.
      </p>
      <label>
        Groups
        <select value={by.value} onChange={(e) => (by.value = e.currentTarget.value)}>
          <option value="auto">by explained class</option>
          <option value="">all in one</option>
          {data.columns.value
            .filter((c) => c.type === "category")
            .map((c) => (
              <option key={c.name} value={c.name}>
                by {c.title}
              </option>
            ))}
        </select>
      </label>
      <label>
        Map
        <select value={map.value} onChange={(e) => (map.value = e.currentTarget.value)}>
          <option value="umap">UMAP</option>
          <option value="tsne">t-SNE</option>
          <option value="">none (the first eigenvectors)</option>
        </select>
      </label>
      <label>
        Clusters by
        <select value={clustering.value} onChange={(e) => (clustering.value = e.currentTarget.value)}>
          <option value="kmeans">k-means, as many as the eigengap says</option>
          <option value="hdbscan">HDBSCAN</option>
        </select>
      </label>
      <button class="primary" disabled={running}>
        {running ? "Running…" : "Analyze"}
      </button>
      {running && (
        <p role="status">
          <progress max={state.total || 1} {...(state.total ? { value: state.done } : {})} /> {state.stage},{" "}
          {number(state.seconds)} s
        </p>
      )}
      {state?.state === "failed" && (
        <p class="error" role="alert">
          {state.message}
        </p>
      )}
    </form>
  );
}
