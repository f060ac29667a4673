/** One sample: all its explanations side by side, its ledger, its flipping curves, its neighbours. */

import { useSignal } from "@preact/signals";
import { useAnswer } from "./answers";
import * as api from "./api";
import * as data from "./data";
import { FlippingOfSample } from "./flipping";
import { named, number } from "./format";
import { ColourBar, Heat, type Source, Thumb, aspects, isPicture } from "./heat";
import { select } from "./legend";
import { LedgerView } from "./ledger";
import { LiveForm, LiveCards } from "./live";
import { Icon } from "./icon";
import { go } from "./samples";
import { Tabs } from "./tabs";
import type { ExplanationFacts, Part, Sample } from "./types";
import * as view from "./view";

const TABS = { relevance: "Relevance", ledger: "Ledger", flipping: "Flipping", facts: "Facts" } as const;

export function Detail({ row }: { row: number }) {
  const { value: sample, error } = useAnswer(`sample ${row}`, () => api.sample(row));
  const tab = view.detail.value in TABS ? view.detail.value : "relevance";
  return (
    <article class="detail" aria-label={`Sample ${sample?.id ?? row}`}>
      <header>
        <button
          class="tool"
          title="Back (Esc)"
          aria-label="Back to the list"
          onClick={() => (view.sample.value = null)}
        >
          <Icon d="M15 5l-7 7 7 7" />
        </button>
        <h2 title={sample?.id}>{sample?.row === row ? sample.id : `row ${row}`}</h2>
        <button class="tool" title="Previous (←)" aria-label="Previous sample" onClick={() => go(-1)}>
          <Icon d="M12 19V6M6 12l6-6 6 6" />
        </button>
        <button class="tool" title="Next (→)" aria-label="Next sample" onClick={() => go(1)}>
          <Icon d="M12 5v13M6 12l6 6 6-6" />
        </button>
      </header>
      {error && (
        <p class="error" role="alert">
          {error}
        </p>
      )}
      {sample && sample.row === row && (
        <>
          <Said sample={sample} />
          <Tabs tabs={TABS} label="Of this sample" active={tab} choose={(name) => (view.detail.value = name)} />
          <div class="detail-body" role="tabpanel">
            {tab === "relevance" && <Relevance sample={sample} />}
            {tab === "ledger" && <LedgerView row={row} />}
            {tab === "flipping" && <FlippingOfSample row={row} />}
            {tab === "facts" && <Facts sample={sample} />}
          </div>
        </>
      )}
    </article>
  );
}

function Said({ sample }: { sample: Sample }) {
  const own = sample.explanations[data.explanation.value?.name ?? ""];
  const differs = sample.label && own?.target && own.target.value !== sample.label.value;
  return (
    <p class="said">
      {sample.label && (
        <span>
          label <b>{sample.label.title}</b>
        </span>
      )}
      {own?.target && (
        <span class={differs ? "differs" : ""}>
          explained <b>{own.target.title}</b>
        </span>
      )}
      {own?.output !== null && (
        <span>
          output <b>{number(own?.output)}</b>
        </span>
      )}
      {sample.cluster !== null && sample.cluster >= 0 && (
        <span>
          cluster <b>{sample.cluster}</b>
        </span>
      )}
      {!sample.valid && <span class="error">{sample.error ?? "not explained"}</span>}
    </p>
  );
}

function Relevance({ sample }: { sample: Sample }) {
  const facts = data.store.value!;
  const front = data.explanation.value!;
  const { frames } = front;
  const frame = useSignal(frames >> 1); // the one that stands for a video elsewhere
  const others = facts.explanations.filter((e) => e.name !== front.name);
  const shown = frames > 1 ? frame.value : undefined;
  return (
    <>
      {frames > 1 && (
        <label class="frames">
          Frame {frame.value + 1} of {frames}
          <input
            type="range"
            min={0}
            max={frames - 1}
            value={frame.value}
            onInput={(e) => (frame.value = Number(e.currentTarget.value))}
          />
        </label>
      )}
      {sample.valid && <Stored sample={sample} explanation={front} frame={shown} whole />}
      {sample.valid &&
        front.parts
          .slice(1)
          .map((part) => <Stored key={part.name} sample={sample} explanation={front} part={part} whole />)}
      {sample.valid && (others.length > 0 || facts.model) && (
        <section>
          <h3>Other explanations of this sample</h3>
          <div class="cards">
            {others.map((e) => (
              <Stored key={e.name} sample={sample} explanation={e} frame={shown} />
            ))}
            <LiveCards row={sample.row} kind={front.kind} frame={shown} />
          </div>
        </section>
      )}
      <LiveForm row={sample.row} target={sample.explanations[front.name]?.target ?? null} label={sample.label} />
      {(sample.neighbours ?? []).length > 0 && isPicture(front.kind) && (
        <section>
          <h3>
            Nearest heatmaps of its group{" "}
            <button
              class="quiet"
              onClick={() => select({ kind: "rows", rows: [sample.row, ...sample.neighbours!.map((n) => n.row)] })}
            >
              select them
            </button>
          </h3>
          <div class="strip">
            {sample.neighbours!.map(({ row, distance }) => (
              <button
                key={row}
                title={`row ${row}, distance ${number(distance)}`}
                aria-label={`Open sample ${row}`}
                onClick={() => (view.sample.value = row)}
              >
                <Thumb row={row} explanation={front} />
              </button>
            ))}
          </div>
        </section>
      )}
    </>
  );
}

/** A stored explanation: `whole` with the input beside it, else the overlay alone; `part`: of a further input. */
function Stored({
  sample,
  explanation,
  frame,
  part,
  whole,
}: {
  sample: Sample;
  explanation: ExplanationFacts;
  frame?: number | undefined;
  part?: Part;
  whole?: boolean;
}) {
  const kind = part?.kind ?? explanation.kind;
  const own = sample.explanations[explanation.name];
  const { value: limit } = useAnswer(`scale ${explanation.name} ${sample.row} ${part?.name ?? ""}`, () =>
    api.scale([sample.row], explanation.name, part?.name),
  );
  const source: Source = {
    of: "sample",
    row: sample.row,
    explanation: explanation.name,
    part: part?.name,
    kind,
    ...(frame === undefined ? {} : { frame, limit, waiting: limit === null }), // all frames on one scale
  };
  const seen = whole ? aspects(kind) : aspects(kind).slice(-1);
  return (
    <figure class={whole ? "whole" : "card"}>
      <div class={isPicture(kind) ? "pictures" : "drawings"}>
        {seen.map((aspect) => (
          <Heat key={aspect} source={source} aspect={aspect} size={whole ? "large" : "small"} />
        ))}
      </div>
      <figcaption>
        <span>
          {whole && explanation.parts.length > 1 && `${inputNamed(part ?? explanation.parts[0]!)}: `}
          <b>{explanation.method}</b> {explanation.composite && <span class="faint">{explanation.composite}</span>}
          {own?.target && ` → ${named(own.target)}`}
        </span>
        <span class="faint" title="The part of the output that the relevance does not add up to">
          {own?.delta !== null && own?.delta !== undefined && `not conserved ${number(own.delta)}`}
        </span>
        <ColourBar limit={limit} />
      </figcaption>
    </figure>
  );
}

function inputNamed({ name }: Part): string {
  return /^\d+$/.test(name) ? `input ${name}` : name;
}

function Facts({ sample }: { sample: Sample }) {
  const titles = new Map(data.store.value!.columns.map((c) => [c.name, c.title]));
  const listed: [string, string][] = [
    ["id", sample.id],
    ["row", String(sample.row)],
    ["label", sample.label?.title ?? "–"],
    ["group", sample.group_title ?? "–"],
    ["cluster", sample.cluster === null ? "–" : String(sample.cluster)],
    ["outlier score", number(sample.outlier)],
    ...Object.entries(sample.explanations).flatMap(([name, own]): [string, string][] => [
      [`${name}: explained`, own.target?.title ?? "–"],
      [`${name}: output`, number(own.output)],
      [`${name}: not conserved`, number(own.delta)],
    ]),
    ...Object.entries(sample.columns ?? {}).map(([name, value]): [string, string] => [
      titles.get(name) ?? name,
      typeof value === "number" ? number(value) : String(value ?? "–"),
    ]),
  ];
  return (
    <dl class="listed">
      {listed.map(([name, value]) => (
        <div key={name}>
          <dt>{name}</dt>
          <dd>{value}</dd>
        </div>
      ))}
    </dl>
  );
}
