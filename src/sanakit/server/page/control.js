// Steering by a picture: a ControlNet of the server, and outlines, depth or a scribble for it to read.

import { button, find, make } from "./dom.js";
import { dataUrl } from "./files.js";
import { openPainter } from "./painter.js";
import { filePicker, range } from "./parts.js";

/** @typedef {import("./types.js").Settings} Settings */
/** @typedef {import("./types.js").ControlChoice} ControlChoice */
/** @typedef {import("./types.js").Capabilities} Capabilities */

/**
 * @param {import("./state.js").State<Settings>} state
 * @param {{
 *   capabilities: Capabilities,
 *   overlay: import("./overlay.js").Overlay,
 *   stage: import("./stage.js").Stage,
 * }} options
 */
export function startControl(state, { capabilities, overlay, stage }) {
  const { controls, annotators } = capabilities;
  find("control-group").hidden = controls.length === 0;
  if (!controls.length) return;
  const place = find("control");

  /** @param {Partial<ControlChoice>} patch */
  function change(patch) {
    const now = state.get().control ?? { name: controls[0].name, picture: "", annotator: null, scale: 1 };
    state.set({ control: { ...now, ...patch } });
  }

  function scribble() {
    const { width, height, control } = state.get();
    stage.showImage(blackSheet(width, height), "A sheet to draw on", false);
    openPainter(overlay, {
      width,
      height,
      before: control?.annotator ? null : (control?.picture ?? null),
      seeThrough: false,
      brush: Math.max(3, Math.round(width / 100)),
      onPaint: (picture) => change({ picture: picture ?? "", annotator: null }),
      onClose: () => {},
    });
  }

  function build() {
    const { control } = state.get();
    const network = select(
      "ControlNet",
      controls.map(({ name }) => [name, name]),
      control?.name ?? "",
      (name) => change({ name }),
    );
    const read = select(
      "Read from it",
      [["", "as it is"], ...annotators.map((name) => /** @type {[string, string]} */ ([name, name]))],
      control?.annotator ?? "",
      (name) => change({ annotator: name || null }),
    );
    place.replaceChildren(
      make(
        "div",
        { class: "stack" },
        network,
        make(
          "div",
          { class: "actions" },
          filePicker("Choose a picture", async (file) => change({ picture: await dataUrl(file) })),
          button({ icon: "brush", text: "Draw a scribble", onclick: scribble }),
          control?.picture &&
            button({
              text: "Without",
              onclick: () => {
                overlay.close();
                state.set({ control: null });
              },
            }),
        ),
        control?.picture && make("img", { src: control.picture, alt: "The control picture", class: "thumb" }),
        control?.picture && read,
        control?.picture &&
          range("Scale", { min: 0, max: 2, step: 0.05, value: control.scale }, (scale) => change({ scale })),
      ),
    );
  }

  let shown = "";
  state.watch(({ control }, changed) => {
    if (!changed.has("control")) return;
    if ((control?.picture ?? "") !== shown) build();
    shown = control?.picture ?? "";
  });
  build();
}

/**
 * @param {string} label
 * @param {[string, string][]} options
 * @param {string} chosen
 * @param {(value: string) => void} onchange
 */
function select(label, options, chosen, onchange) {
  const field = make(
    "select",
    { onchange: () => onchange(field.value) },
    ...options.map(([value, text]) => make("option", { value, selected: value === chosen }, text)),
  );
  return make("label", { class: "field" }, make("span", { class: "label" }, label), field);
}

/** @param {number} width @param {number} height */
function blackSheet(width, height) {
  const sheet = make("canvas", { width, height });
  sheet.getContext("2d").fillRect(0, 0, width, height);
  return sheet.toDataURL("image/png");
}
