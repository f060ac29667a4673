/** The page: the bar on top, the map, the panel beside it (on a phone, a sheet over it). */

import { signal } from "@preact/signals";
import { useRef } from "preact/hooks";
import { Clusters } from "./clusters";
import * as data from "./data";
import { Detail } from "./detail";
import { FlippingOfSelection } from "./flipping";
import { Help } from "./help";
import { MapView } from "./map";
import { Samples, inFront } from "./samples";
import { Saved } from "./saved";
import { Spectrum } from "./spectrum";
import { Tabs } from "./tabs";
import { Top } from "./top";
import * as view from "./view";

const TABS = {
  clusters: "Clusters",
  samples: "Samples",
  spectrum: "Spectrum",
  flipping: "Flipping",
  saved: "Saved",
} as const;

export function App() {
  return (
    <>
      <Top />
      <Notices />
      <main>
        <MapView />
        {data.store.value && <Panel />}
      </main>
      <Help />
    </>
  );
}

function Notices() {
  return (
    <div class="notices">
      {(data.store.value?.notices ?? []).map((text) => (
        <p key={text} class="notice-line">
          {text}
        </p>
      ))}
      {data.message.value && (
        <p class="notice-line error" role="alert">
          {data.message.value}{" "}
          <button class="quiet" onClick={() => (data.message.value = null)}>
            dismiss
          </button>
        </p>
      )}
    </div>
  );
}

/** How high the sheet stands on a phone. */
const sheet = signal<"low" | "half" | "full">("half");
const HIGHER = { low: "half", half: "full", full: "full" } as const;
const LOWER = { low: "low", half: "low", full: "half" } as const;

function Panel() {
  const row = view.sample.value;
  const first = data.explanation.value?.analysis ? "clusters" : "samples";
  const tab = view.tab.value in TABS ? (view.tab.value as view.Tab) : first;
  return (
    <aside class={`panel ${sheet.value}`} aria-label="Samples and clusters">
      <Handle />
      <div class="panel-head">
        <p class="in-front-of" aria-live="polite">
          <b>{inFront()}</b>
          {view.steps.value.length > 0 && (
            <button class="quiet" onClick={() => (view.steps.value = [])} title="Clear the selection (Esc)">
              clear
            </button>
          )}
        </p>
        <Tabs
          tabs={TABS}
          label="Views"
          active={tab}
          choose={(name) => {
            view.sample.value = null;
            view.tab.value = name;
            if (sheet.value === "low") sheet.value = "half";
          }}
        />
      </div>
      <div class="panel-body" role="tabpanel" aria-label={TABS[tab]} hidden={row !== null}>
        {tab === "clusters" && <Clusters />}
        {tab === "samples" && <Samples />}
        {tab === "spectrum" && <Spectrum />}
        {tab === "flipping" && <FlippingOfSelection />}
        {tab === "saved" && <Saved />}
      </div>
      {row !== null && (
        <div class="panel-body">
          <Detail row={row} />
        </div>
      )}
    </aside>
  );
}

/** On a phone: drag or tap to make the sheet higher or lower. */
function Handle() {
  const start = useRef(0);
  const dragged = useRef(false);
  return (
    <button
      class="handle only-phone"
      aria-label={sheet.value === "full" ? "Lower the sheet" : "Raise the sheet"}
      onPointerDown={(event) => {
        start.current = event.clientY;
        event.currentTarget.setPointerCapture(event.pointerId);
      }}
      onPointerUp={(event) => {
        const moved = event.clientY - start.current;
        dragged.current = Math.abs(moved) > 24;
        if (dragged.current) sheet.value = (moved < 0 ? HIGHER : LOWER)[sheet.value];
      }}
      // a tap waits for the click: were the sheet to move before, the click would hit what comes to lie under the finger
      onClick={() => {
        if (!dragged.current) sheet.value = sheet.value === "full" ? "half" : HIGHER[sheet.value];
        dragged.current = false;
      }}
      onKeyDown={(event) => {
        if (event.key === "ArrowUp") sheet.value = HIGHER[sheet.value];
        else if (event.key === "ArrowDown") sheet.value = LOWER[sheet.value];
        else return;
        event.stopPropagation();
      }}
    />
  );
}
