// The LoRAs that the server offers: on or off, and how strongly.

import { find, make } from "./dom.js";
import { range } from "./parts.js";

/** @typedef {import("./types.js").Settings} Settings */

const WEIGHTS = { min: -1, max: 2, step: 0.05 };

/**
 * @param {import("./state.js").State<Settings>} state
 * @param {{name: string}[]} offered
 */
export function startLoras(state, offered) {
  find("loras-group").hidden = offered.length === 0;

  /** @param {string} name @param {number|null} weight null turns it off */
  function set(name, weight) {
    const { [name]: _, ...others } = state.get().loras;
    state.set({ loras: weight === null ? others : { ...others, [name]: weight } });
  }

  function build() {
    const { loras } = state.get();
    find("loras").replaceChildren(
      make(
        "div",
        { class: "stack" },
        ...offered.map(({ name }) => {
          const on = name in loras;
          const slider = range(
            `Weight of ${shown(name)}`,
            { ...WEIGHTS, value: loras[name] ?? 1 },
            (weight) => set(name, weight),
          );
          slider.hidden = !on;
          const box = make("input", {
            type: "checkbox",
            role: "switch",
            checked: on,
            onchange: () => {
              slider.hidden = !box.checked;
              set(name, box.checked ? Number(slider.querySelector("input").value) : null);
            },
          });
          return make(
            "div",
            { class: "card" },
            make("label", { class: "switch" }, box, make("span", {}, shown(name))),
            slider,
          );
        }),
      ),
    );
  }

  let names = "";
  state.watch(({ loras }, changed) => {
    if (!changed.has("loras")) return;
    const now = Object.keys(loras).sort().join();
    const mine = document.activeElement?.closest("#loras");
    if (now !== names && !mine) build(); // settings of a picture were loaded
    names = now;
  });
  build();
}

/** @param {string} name of a file */
const shown = (name) => name.replace(/\.safetensors$/, "");
