/** The bar on top: which store, what is shown of it, the filter. */

import { useSignal, useSignalEffect } from "@preact/signals";
import { useRef } from "preact/hooks";
import * as data from "./data";
import { count } from "./format";
import { helping } from "./help";
import { Icon } from "./icon";
import { dark, turn } from "./theme";
import * as view from "./view";

export function Top() {
  const facts = data.store.value;
  const open = useSignal(false);
  return (
    <header class="top">
      <h1>
        <span class="brand">Headwater</span>
        {facts && (
          <>
            <span class="store" title={facts.title}>
              {facts.title}
            </span>
            <span class="faint size">{count(facts.n, "sample")}</span>
          </>
        )}
      </h1>
      {facts && (
        <>
          <Search />
          <div class={`choices ${open.value ? "open" : ""}`}>
            <Explanations />
            {data.maps.value.length > 1 && (
              <Choice
                title="Map"
                value={data.map.value?.name ?? ""}
                options={data.maps.value.map((m) => [m.name, m.title])}
                choose={(v) => (view.map.value = v)}
              />
            )}
            {data.columns.value.length > 0 && (
              <Choice
                title="Colour"
                value={data.colourColumn.value ?? ""}
                options={data.columns.value.map((c) => [c.name, c.title])}
                choose={(v) => (view.colour.value = v)}
              />
            )}
          </div>
        </>
      )}
      <button
        class="tool only-phone"
        aria-expanded={open.value}
        aria-label="What is shown"
        onClick={() => (open.value = !open.value)}
      >
        <Icon d="M4 7h16M7 12h10M10 17h4" />
      </button>
      <button
        class="tool"
        title={dark.value ? "Light" : "Dark"}
        aria-label={dark.value ? "Light theme" : "Dark theme"}
        onClick={turn}
      >
        <Icon
          d={
            dark.value
              ? "M12 8a4 4 0 1 0 0 8a4 4 0 1 0 0-8M12 2v2M12 20v2M2 12h2M20 12h2M5 5l1.400 1.400M17.600 17.600L19 19M5 19l1.400-1.400M17.600 6.400L19 5"
              : "M20 14.500A8.500 8.500 0 0 1 9.500 4a8.500 8.500 0 1 0 10.500 10.500z"
          }
        />
      </button>
      <button class="tool" title="Keys and help (?)" aria-label="Help" onClick={() => (helping.value = true)}>
        <Icon d="M9 9.200a3 3 0 1 1 4.300 2.700c-1 .5-1.300 1.100-1.300 2.300M12 17.500v.2" />
      </button>
    </header>
  );
}

/** Method and target apart, where the store holds more than one of each. */
function Explanations() {
  const all = data.store.value!.explanations;
  const own = data.explanation.value!;
  const way = (e: typeof own) => (e.composite ? `${e.method}, ${e.composite}` : e.method);
  const methods = [...new Set(all.map(way))];
  const targets = [...new Set(all.filter((e) => way(e) === way(own)).map((e) => e.target))];
  const find = (method: string, target: string) =>
    all.find((e) => way(e) === method && e.target === target) ?? all.find((e) => way(e) === method)!;
  return (
    <>
      <Choice
        title="Method"
        value={way(own)}
        options={methods.map((m) => [m, m])}
        choose={(m) => front(find(m, own.target).name)}
      />
      {targets.length > 1 && (
        <Choice
          title="Target"
          value={own.target}
          options={targets.map((t) => [t, t])}
          choose={(t) => front(find(way(own), t).name)}
        />
      )}
    </>
  );
}

/** Put an explanation in front, and its map with it where it has one. */
function front(name: string): void {
  const maps = data.maps.value;
  const kind = data.map.value?.name;
  view.explanation.value = name;
  const own = maps.filter((m) => m.explanation === name);
  if (own.length && !own.some((m) => m.name === kind)) view.map.value = own[0]!.name;
}

interface ChoiceProps {
  title: string;
  value: string;
  options: [string, string][];
  choose: (value: string) => void;
}

function Choice({ title, value, options, choose }: ChoiceProps) {
  return (
    <label class="choice">
      <span>{title}</span>
      <select value={value} onChange={(e) => choose(e.currentTarget.value)}>
        {options.map(([name, text]) => (
          <option key={name} value={name}>
            {text}
          </option>
        ))}
      </select>
    </label>
  );
}

const PAUSE = 350; // milliseconds without a key before the filter is asked

function Search() {
  const typed = useSignal(view.filter.peek());
  const timer = useRef(0);
  useSignalEffect(() => {
    typed.value = view.filter.value;
  });
  const put = () => {
    clearTimeout(timer.current);
    view.filter.value = typed.value.trim();
    view.page.value = 0;
  };
  const example = data.columns.value.find((c) => c.type === "number")?.name;
  return (
    <form class="search" role="search" onSubmit={(e) => (e.preventDefault(), put())}>
      <input
        id="filter"
        type="search"
        aria-label="Filter"
        aria-invalid={data.filterError.value !== null}
        placeholder={example ? `Filter: id, or ${example} > 0.5` : "Filter: id"}
        spellcheck={false}
        autocomplete="off"
        value={typed.value}
        onInput={(e) => {
          typed.value = e.currentTarget.value;
          clearTimeout(timer.current);
          timer.current = window.setTimeout(put, PAUSE);
        }}
      />
      {data.filterError.value && (
        <p class="error" role="alert">
          {data.filterError.value}
        </p>
      )}
    </form>
  );
}
