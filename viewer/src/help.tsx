/** Keys, and how a filter is written. */

import { signal, useSignalEffect } from "@preact/signals";
import { useRef } from "preact/hooks";
import * as data from "./data";

export const helping = signal(false);

const KEYS: [string, string][] = [
  ["← → ↑ ↓", "through the samples in front"],
  ["Enter", "open the first of them"],
  ["L", "lasso: Shift adds, Alt takes away"],
  ["Esc", "back, then clear the selection, then the filter"],
  ["/", "filter"],
  ["1 … 5", "clusters, samples, spectrum, flipping, saved"],
  ["+ − 0", "zoom the map, see all of it"],
  ["Z", "zoom to the selection"],
  ["[ ]", "pages of samples"],
  ["T", "dark or light"],
  ["M", "how long a frame takes"],
  ["?", "this help"],
];

const FILTERS: [string, string][] = [
  ["label = Shirt", "a category by its title; != for all others"],
  ["lrp.output > 2.5 and not valid = false", "numbers, and, or, not, parentheses"],
  ["label in (Shirt, Coat)", "any of several"],
  ["label ~ shi", "contains, ignoring case"],
  ["outlier is missing", "samples without a value"],
  ["photo_17", "a word alone: the id contains it"],
];

export function Help() {
  const dialog = useRef<HTMLDialogElement>(null);
  useSignalEffect(() => {
    if (!helping.value) dialog.current?.close();
    else {
      dialog.current?.showModal();
      dialog.current?.scrollTo(0, 0); // the browser scrolled down to the button, which it puts the focus on
    }
  });
  const facts = data.store.value;
  return (
    <dialog
      ref={dialog}
      class="help"
      aria-label="Help"
      onClose={() => (helping.value = false)}
      onClick={(e) => e.target === dialog.current && (helping.value = false)}
    >
      <form method="dialog">
        <h2>Keys</h2>
        <dl class="listed">
          {KEYS.map(([key, what]) => (
            <div key={key}>
              <dt>
                <kbd>{key}</kbd>
              </dt>
              <dd>{what}</dd>
            </div>
          ))}
        </dl>
        <h2>Filters</h2>
        <dl class="listed">
          {FILTERS.map(([text, what]) => (
            <div key={text}>
              <dt>
                <code>{text}</code>
              </dt>
              <dd>{what}</dd>
            </div>
          ))}
        </dl>
        {facts && (
          <p class="faint">
            Of this store:{" "}
            {facts.filter_help.map((text) => (
              <>
                <code>{text}</code>,{" "}
              </>
            ))}
            columns: {facts.columns.map((c) => c.name).join(", ")}
          </p>
        )}
        {facts && (
          <p class="faint">
            It was written by{" "}
            {Object.entries(facts.versions)
              .map(([name, version]) => `${name} ${version}`)
              .join(", ")}
          </p>
        )}
        <button class="primary">Close</button>
      </form>
    </dialog>
  );
}
