/** Named selections with notes, saved beside the store; and exports. */

import { useSignal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import * as api from "./api";
import * as data from "./data";
import { count } from "./format";
import { select } from "./legend";
import type { SelectionFacts } from "./types";
import * as view from "./view";

const FORMATS = { csv: "CSV", ids: "ids", png: "PNG", svg: "SVG", html: "report" } as const;
type Format = keyof typeof FORMATS;
const TOLD: Record<Format, string> = {
  csv: "a table of their facts",
  ids: "their ids, one a line",
  png: "a zip of pictures",
  svg: "a zip of drawings",
  html: "one page with all of them, to send on",
};

export function Saved() {
  return (
    <>
      <Current />
      <h3>Saved selections</h3>
      {data.saved.value.length === 0 && (
        <p class="empty">None yet. They are kept beside the store, and links open them.</p>
      )}
      <ul class="saved">
        {data.saved.value.map((facts) => (
          <Entry key={facts.name} facts={facts} />
        ))}
      </ul>
    </>
  );
}

/** The samples in front: name them, write a note, export them. */
function Current() {
  const name = useSignal("");
  const note = useSignal("");
  const rows = data.rows.value;
  const readOnly = data.store.value?.read_only;
  const known = data.saved.value.find((s) => s.name === name.value.trim());
  const keep = async () => {
    const title = name.value.trim();
    try {
      await api.keep(title, { rows: [...rows], note: note.value, revision: known?.revision ?? null });
      await data.readSaved();
      view.filter.value = "";
      select({ kind: "saved", name: title });
      name.value = note.value = "";
    } catch (error) {
      data.tell(error);
    }
  };
  return (
    <section class="current">
      <h3>{count(rows.length, "sample")} in front</h3>
      {readOnly ? (
        <p class="faint">The store was opened read-only: nothing can be saved.</p>
      ) : (
        <form onSubmit={(event) => (event.preventDefault(), void keep())}>
          <input
            aria-label="Name of the selection"
            placeholder="Name of the selection"
            maxLength={100}
            required
            value={name.value}
            onInput={(e) => (name.value = e.currentTarget.value)}
          />
          <textarea
            aria-label="Note"
            placeholder="What is it that you see?"
            rows={2}
            value={note.value}
            onInput={(e) => (note.value = e.currentTarget.value)}
          />
          <button class="primary" disabled={!rows.length || !name.value.trim()}>
            {known ? "Save over it" : "Save"}
          </button>
        </form>
      )}
      <Exports title={view.steps.value.length ? "selection" : "all"} rows={async () => [...rows]} />
    </section>
  );
}

function Exports({ title, rows }: { title: string; rows: () => Promise<number[]> }) {
  const busy = useSignal<string | null>(null);
  const told = useSignal<string | null>(null);
  const run = async (format: Format) => {
    busy.value = format;
    told.value = null;
    try {
      const cut = await api.download(format, await rows(), title, data.explanation.value!.name);
      told.value = cut && `The file holds ${cut}: CSV and ids hold all.`;
    } catch (error) {
      data.tell(error);
    }
    busy.value = null;
  };
  return (
    <p class="exports">
      <span class="faint">Export</span>
      {(Object.keys(FORMATS) as Format[]).map((format) => (
        <button
          key={format}
          title={TOLD[format]}
          disabled={busy.value !== null}
          aria-busy={busy.value === format}
          onClick={() => run(format)}
        >
          {FORMATS[format]}
        </button>
      ))}
      {told.value && <span role="status">{told.value}</span>}
    </p>
  );
}

function Entry({ facts }: { facts: SelectionFacts }) {
  const sure = useSignal(false);
  const readOnly = data.store.value?.read_only ?? false;
  const drop = async () => {
    if (!sure.value) {
      sure.value = true;
      return;
    }
    try {
      await api.forget(facts.name, facts.revision);
    } catch (error) {
      data.tell(error);
    }
    await data.readSaved();
  };
  const inFront = view.steps.value.some((step) => step.kind === "saved" && step.name === facts.name);
  return (
    <li class={inFront ? "in-front" : ""}>
      <button
        class="name"
        aria-pressed={inFront}
        onClick={(e) => select({ kind: "saved", name: facts.name }, e.shiftKey)}
      >
        <b>{facts.name}</b>{" "}
        <span class="faint">
          {count(facts.n, "sample")}, {new Date(facts.saved).toLocaleString()}
        </span>
      </button>
      <Note facts={facts} readOnly={readOnly} />
      <Exports title={facts.name} rows={async () => (await api.selection(facts.name)).rows} />
      {!readOnly && (
        <button class="quiet" onClick={drop} onBlur={() => (sure.value = false)}>
          {sure.value ? "Delete for good?" : "Delete"}
        </button>
      )}
    </li>
  );
}

/** The note of a selection, saved when it is left; of two that were written at once, the reader chooses. */
function Note({ facts, readOnly }: { facts: SelectionFacts; readOnly: boolean }) {
  const begun = useSignal(facts); // what was saved when this note was begun
  const note = useSignal(facts.note);
  const edited = note.value !== begun.value.note;
  const overtaken = edited && facts.revision !== begun.value.revision && facts.note !== note.value;
  const take = () => {
    begun.value = facts;
    note.value = facts.note;
  };
  useEffect(() => {
    if (!edited || facts.note === note.value) take();
  }, [facts]);
  const field = useRef<HTMLTextAreaElement>(null);
  const writing = useRef(false);
  const write = async (over: SelectionFacts) => {
    if (writing.current) return;
    writing.current = true;
    try {
      let last: SelectionFacts | null = over;
      // what was typed and left while an earlier note was on its way is saved after it
      while (last && note.value !== last.note) last = await put(last);
    } finally {
      writing.current = false;
    }
  };
  /** Save the note over another; what is saved then, or null where it was refused or is being written on. */
  const put = async (over: SelectionFacts) => {
    let kept = null;
    try {
      kept = begun.value = await api.keep(facts.name, { note: note.value, revision: over.revision });
    } catch (error) {
      data.tell(error);
    }
    await data.readSaved();
    return document.activeElement === field.current ? null : kept;
  };
  return (
    <>
      <textarea
        ref={field}
        aria-label={`Note on ${facts.name}`}
        rows={note.value ? 2 : 1}
        placeholder="No note"
        value={note.value}
        readOnly={readOnly}
        onInput={(e) => (note.value = e.currentTarget.value)}
        onBlur={() => !overtaken && write(begun.value)}
      />
      {overtaken && (
        <p class="error" role="alert">
          Someone else noted meanwhile: “{facts.note}” <button onClick={take}>Take theirs</button>{" "}
          <button onClick={() => write(facts)}>Save mine</button>
        </p>
      )}
    </>
  );
}
