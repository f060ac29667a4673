import { render } from "preact";
import { App } from "./app";
import * as data from "./data";
import { listenToKeys } from "./keys";
import { stage } from "./map";
import { frame } from "./stage";
import "./style.css";
import { follow } from "./view";

declare global {
  interface Window {
    /** For measurements: the last frame that was timed, and the times of some whole frames drawn now. */
    headwater: { readonly frame: typeof frame.value; measure(frames?: number): number[] };
  }
}

window.headwater = {
  get frame() {
    return frame.value;
  },
  measure: (frames = 5) => stage.value?.measure(frames) ?? [],
};

// a token in the address has done its work: the server has set the cookie
if (location.search) history.replaceState(null, "", location.pathname + location.hash);
follow();
listenToKeys();
render(<App />, document.body);
data.open().catch(data.tell);
