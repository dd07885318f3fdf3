// Changing a picture: its source, a mask, how much of it stays.

import { button, find, make } from "./dom.js";
import { loadImage, readPicture } from "./files.js";
import { openPainter } from "./painter.js";
import { filePicker, range } from "./parts.js";
import { DEFAULT_STRENGTH } from "./settings.js";

/** @typedef {import("./types.js").Edit} Edit */
/** @typedef {import("./types.js").Settings} Settings */

const SIDES = ["Left", "Top", "Right", "Bottom"];

/**
 * @param {import("./state.js").State<Settings>} state
 * @param {{
 *   overlay: import("./overlay.js").Overlay,
 *   stage: import("./stage.js").Stage,
 *   onFault: (error: Error) => void,
 * }} options
 */
export function startEdit(state, { overlay, stage, onFault }) {
  const place = find("edit");

  /** @param {Blob} blob @param {string} name */
  async function begin(blob, name) {
    try {
      const { url, width, height } = await readPicture(blob);
      const strength = DEFAULT_STRENGTH.whole;
      state.set({
        edit: {
          source: url,
          name,
          width,
          height,
          mask: null,
          strength,
          sourcePrompt: "",
          outpaint: [0, 0, 0, 0],
        },
      });
      find("edit-group").open = true;
    } catch (error) {
      onFault(/** @type {Error} */ (error));
    }
  }

  /** @param {Partial<Edit>} patch */
  function change(patch) {
    const edit = state.get().edit;
    if (edit) state.set({ edit: { ...edit, ...patch } });
  }

  /** A mask, or words, ask for another strength than a change of the whole. @param {Partial<Edit>} patch */
  function changeKind(patch) {
    const before = state.get().edit;
    if (!before) return;
    const after = { ...before, ...patch };
    const untouched = before.strength === usualStrength(before);
    change({ ...patch, ...(untouched ? { strength: usualStrength(after) } : {}) });
  }

  function paint() {
    const edit = state.get().edit;
    if (!edit) return;
    stage.showImage(edit.source, "The picture to change", false);
    openPainter(overlay, {
      width: edit.width,
      height: edit.height,
      before: edit.mask,
      seeThrough: true,
      brush: Math.round(Math.min(edit.width, edit.height) / 6),
      onPaint: (mask) => changeKind({ mask }),
      onClose: () => {},
    });
  }

  /** @param {Blob} blob */
  async function takeMask(blob) {
    try {
      const { url } = await readPicture(blob);
      const edit = state.get().edit;
      if (edit) changeKind({ mask: await fitted(url, edit) });
    } catch (error) {
      onFault(/** @type {Error} */ (error));
    }
  }

  function build() {
    const { edit } = state.get();
    if (!edit) {
      place.replaceChildren(
        make(
          "p",
          { class: "hint" },
          "Words change all of a picture, or what you paint over. Choose a file, or Edit at a picture.",
        ),
        filePicker("Choose a picture", (file) => begin(file, file.name)),
      );
      return;
    }
    const shown = make("img", { src: edit.source, alt: `To change: ${edit.name}`, class: "thumb" });
    const words = make("input", {
      type: "text",
      id: "source_prompt",
      value: edit.sourcePrompt,
      autocomplete: "off",
      oninput: () => changeKind({ sourcePrompt: words.value }),
    });
    place.replaceChildren(
      make(
        "div",
        { class: "stack" },
        make(
          "div",
          { class: "card-head" },
          make("span", { class: "label" }, `${edit.name}, ${edit.width} × ${edit.height}`),
          button({
            icon: "close",
            label: "Don't change a picture",
            className: "square",
            onclick: () => {
              overlay.close();
              state.set({ edit: null });
            },
          }),
        ),
        shown,
        range("Strength", { id: "strength", min: 0, max: 1, step: 0.01, value: edit.strength }, (strength) =>
          change({ strength }),
        ),
        make(
          "div",
          { class: "actions" },
          button({ icon: "brush", text: "Paint a mask", onclick: paint }),
          filePicker("Mask from a file", takeMask),
          edit.mask &&
            button({
              text: "Without a mask",
              onclick: () => {
                overlay.close();
                changeKind({ mask: null });
              },
            }),
        ),
        make(
          "p",
          { class: "hint" },
          edit.mask
            ? "What is white in the mask is drawn anew; the rest stays to the bit."
            : "Without a mask all of it changes.",
        ),
        make(
          "label",
          { class: "field" },
          make("span", { class: "label" }, "By words alone: what it shows now"),
          words,
        ),
        margins(edit, (outpaint) => change({ outpaint })),
      ),
    );
  }

  state.watch((settings, changed) => {
    if (changed.has("edit") && needsBuild(settings.edit)) build();
  });
  let built = /** @type {Edit|null} */ (null);
  /**
   * Whether more than a slider's value changed; a slider that is rebuilt would lose the pointer.
   * @param {Edit|null} edit
   */
  function needsBuild(edit) {
    const same =
      edit && built && edit.source === built.source && (edit.mask === null) === (built.mask === null);
    const strengthField = document.getElementById("strength");
    if (same && strengthField instanceof HTMLInputElement && edit)
      strengthField.value = String(edit.strength);
    built = edit;
    return !same;
  }
  build();
  return { begin };
}

/** @param {Edit} edit */
function usualStrength(edit) {
  if (edit.mask) return DEFAULT_STRENGTH.masked;
  return edit.sourcePrompt.trim() ? DEFAULT_STRENGTH.words : DEFAULT_STRENGTH.whole;
}

/** @param {Edit} edit @param {(outpaint: [number, number, number, number]) => void} onchange */
function margins(edit, onchange) {
  const inputs = SIDES.map((side, at) =>
    make("input", {
      type: "number",
      min: 0,
      step: 32,
      value: edit.outpaint[at],
      "aria-label": `${side} margin in pixels`,
      title: side,
      oninput: tell,
    }),
  );
  function tell() {
    const values = inputs.map((input) => Math.max(0, Math.round(Number(input.value) || 0)));
    onchange(/** @type {[number, number, number, number]} */ (values));
  }
  return make(
    "div",
    { class: "field" },
    make("span", { class: "label" }, "Beyond its edges: left, top, right, bottom"),
    make("div", { class: "joined" }, ...inputs),
  );
}

/**
 * A mask at the size of its picture, as the server asks for it.
 * @param {string} url
 * @param {{width: number, height: number}} size
 */
async function fitted(url, { width, height }) {
  const image = await loadImage(url);
  const sheet = make("canvas", { width, height });
  sheet.getContext("2d").drawImage(image, 0, 0, width, height);
  return sheet.toDataURL("image/png");
}
