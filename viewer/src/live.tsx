/** Explain a sample now, with another method or another target. */

import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { useAnswer } from "./answers";
import * as api from "./api";
import * as data from "./data";
import { named, number } from "./format";
import { ColourBar, Heat, type Source, aspects, isPicture } from "./heat";
import type { Kind, LiveQuestion, LiveTarget, Named } from "./types";
import * as view from "./view";

const FORMS = {
  class: "the output of a class",
  log_odds: "log odds of a class",
  contrast: "a class against all others",
  margin: "one class against another",
  sum: "the sum of outputs",
} as const;
type Form = keyof typeof FORMS;

export function LiveForm({ row, target, label }: { row: number; target: Named | null; label: Named | null }) {
  const model = data.store.value!.model;
  const method = useSignal(model?.methods[0]?.name ?? "");
  const composite = useSignal("");
  const form = useSignal<Form>("class");
  const known = [target?.value, label?.value].find((value) => Number.isInteger(value)); // a quantity is no class
  const first = useSignal(String(known ?? ""));
  const second = useSignal("0");
  if (!model) {
    return (
      <p class="empty">
        To explain it with other methods and targets, open the store with its model:{" "}
        <code>headwater view STORE --model … --weights …</code>
      </p>
    );
  }
  const families = Map.groupBy(model.methods, (m) => m.family);
  const rules = model.methods.find((m) => m.name === method.value)?.rules ?? false;
  const ask = () => {
    const asked: LiveQuestion = {
      method: method.value,
      composite: rules && composite.value ? composite.value : null,
      target: targetOf(form.value, first.value, second.value),
    };
    const others = view.live.value.filter((old) => keyOf(old) !== keyOf(asked) && !unanswered.has(keyOf(old)));
    view.live.value = [...others, asked].slice(-8);
  };
  return (
    <form class="live" onSubmit={(event) => (event.preventDefault(), ask())} aria-label={`Explain sample ${row} now`}>
      <h3>Explain it now</h3>
      <label>
        Method
        <select value={method.value} onChange={(e) => (method.value = e.currentTarget.value)}>
          {[...families].map(([family, methods]) => (
            <optgroup key={family} label={family}>
              {methods.map((m) => (
                <option key={m.name} value={m.name}>
                  {m.name}
                </option>
              ))}
            </optgroup>
          ))}
        </select>
      </label>
      {rules && (
        <label>
          Rules
          <select value={composite.value} onChange={(e) => (composite.value = e.currentTarget.value)}>
            <option value="">as the model asks for</option>
            {model.composites.map((name) => (
              <option key={name} value={name}>
                {name}
              </option>
            ))}
          </select>
        </label>
      )}
      <label>
        Explain
        <select value={form.value} onChange={(e) => (form.value = e.currentTarget.value as Form)}>
          {Object.entries(FORMS).map(([name, title]) => (
            <option key={name} value={name}>
              {title}
            </option>
          ))}
        </select>
      </label>
      {form.value !== "sum" && <ClassField title="Class" value={first} />}
      {form.value === "margin" && <ClassField title="against" value={second} />}
      <button class="primary">Explain</button>
    </form>
  );
}

function ClassField({ title, value }: { title: string; value: { value: string } }) {
  const { classes, model } = data.store.value!;
  if (!classes.length) {
    return (
      <label>
        {title}
        <input
          type="number"
          min={0}
          max={model?.outputs ? model.outputs - 1 : undefined}
          value={value.value}
          placeholder="predicted"
          onInput={(e) => (value.value = e.currentTarget.value)}
        />
      </label>
    );
  }
  return (
    <label>
      {title}
      <select value={value.value} onChange={(e) => (value.value = e.currentTarget.value)}>
        {classes.map((name, i) => (
          <option key={i} value={i}>
            {name}
          </option>
        ))}
      </select>
    </label>
  );
}

function targetOf(form: Form, first: string, second: string): LiveTarget {
  if (form === "sum") return { kind: "sum" };
  if (first === "") return null;
  const c = Number(first);
  if (form === "class") return c;
  return form === "margin" ? { kind: "margin", a: c, b: Number(second) } : { kind: form, c };
}

function keyOf(question: LiveQuestion): string {
  return JSON.stringify([question.method, question.composite, question.target]);
}

/** Questions on their way: a new one takes their place, as the model serves one at a time. */
const unanswered = new Set<string>();

/** What was asked for, answered for this sample. */
export function LiveCards({ row, kind, frame }: { row: number; kind: Kind; frame?: number | undefined }) {
  if (!data.store.value?.model) return null;
  return (
    <>
      {view.live.value.map((question) => (
        <LiveCard key={keyOf(question)} row={row} question={question} kind={kind} frame={frame} />
      ))}
    </>
  );
}

function LiveCard({
  row,
  question,
  kind,
  frame,
}: {
  row: number;
  question: LiveQuestion;
  kind: Kind;
  frame?: number | undefined;
}) {
  const key = keyOf(question);
  const { value, error } = useAnswer(`explain ${row} ${key}`, (stop) => api.explain(row, question, stop));
  const busy = !value && !error;
  useEffect(() => {
    if (busy) unanswered.add(key);
    return () => void unanswered.delete(key);
  }, [busy, key]);
  const drop = () => {
    view.live.value = view.live.value.filter((old) => keyOf(old) !== key);
  };
  const source: Source | null = value && { of: "live", row, key: value.key, kind, limit: value.limit, frame };
  return (
    <figure class="card" aria-busy={busy}>
      {source && (
        <div class={isPicture(kind) ? "pictures" : "drawings"}>
          <Heat source={source} aspect={aspects(kind).at(-1)!} size="small" />
        </div>
      )}
      {error && (
        <p class="error" role="alert">
          {error}
        </p>
      )}
      {busy && <p class="empty">Explaining…</p>}
      <figcaption>
        <span>
          <b>{question.method}</b> {question.composite && <span class="faint">{question.composite}</span>}
          {value?.target && ` → ${named(value.target)}`} <span class="badge">now</span>
        </span>
        {value && (
          <span class="faint" title={value.sources.join("\n")}>
            output {number(value.output)}, {number(value.seconds)} s
          </span>
        )}
        {value && <ColourBar limit={value.limit} />}
        <button class="quiet" onClick={drop} aria-label={`${busy ? "Stop" : "Remove"} ${question.method}`}>
          {busy ? "stop" : "remove"}
        </button>
      </figcaption>
    </figure>
  );
}
