// Words for a place: boxes drawn over the picture, each with words of its own.

import { button, find, make } from "./dom.js";

/** @typedef {import("./types.js").Region} Region */
/** @typedef {import("./types.js").Settings} Settings */

const SIDES = ["Left", "Top", "Width", "Height"];
const LEAST = 0.03; // of the picture; less is a click, not a box

/**
 * @param {import("./state.js").State<Settings>} state
 * @param {import("./overlay.js").Overlay} overlay
 */
export function startRegions(state, overlay) {
  const place = find("regions");
  /** @type {HTMLElement|null} */
  let sheet = null;

  /** @param {Region[]} regions */
  const set = (regions) => state.set({ regions });

  /** @param {number} at @param {Partial<Region>} patch */
  function change(at, patch) {
    set(state.get().regions.map((region, index) => (index === at ? { ...region, ...patch } : region)));
  }

  function build() {
    const { regions } = state.get();
    place.replaceChildren(
      make(
        "div",
        { class: "stack" },
        make(
          "p",
          { class: "hint" },
          "Inside of a box the model reads the box's words instead of the prompt.",
        ),
        ...regions.map((region, at) => card(region, at)),
        make(
          "div",
          { class: "actions" },
          button({ icon: "box", text: "Draw boxes", onclick: openSheet }),
          button({
            icon: "add",
            text: "Add a box",
            onclick: () => set([...regions, { box: [0.25, 0.25, 0.5, 0.5], prompt: "" }]),
          }),
        ),
      ),
    );
  }

  /** @param {Region} region @param {number} at */
  function card(region, at) {
    const name = `Box ${at + 1}`;
    const words = make("input", {
      type: "text",
      value: region.prompt,
      autocomplete: "off",
      placeholder: "a red cube",
      "aria-label": `Words of box ${at + 1}`,
      oninput: () => change(at, { prompt: words.value }),
    });
    const sides = SIDES.map((side, index) => {
      const input = make("input", {
        type: "number",
        min: 0,
        max: 100,
        step: 1,
        value: Math.round(region.box[index] * 100),
        "aria-label": `${side} of box ${at + 1} in percent`,
        title: `${side}, %`,
        oninput: () => {
          const box = /** @type {Region["box"]} */ ([...state.get().regions[at].box]);
          box[index] = Math.min(Math.max(Number(input.value) / 100, 0), 1);
          change(at, { box });
        },
      });
      return input;
    });
    return make(
      "div",
      { class: "card", role: "group", "aria-label": name },
      make(
        "div",
        { class: "card-head" },
        make("span", { class: "label" }, name),
        button({
          icon: "close",
          label: `Remove box ${at + 1}`,
          className: "square",
          onclick: () => set(state.get().regions.filter((_, index) => index !== at)),
        }),
      ),
      words,
      make("div", { class: "joined" }, ...sides),
    );
  }

  function openSheet() {
    const { width, height, edit } = state.get();
    const layer = (sheet = make("div", { class: "boxes", onpointerdown: dragBox }));
    overlay.open(
      {
        width: edit?.width ?? width,
        height: edit?.height ?? height,
        layers: [layer],
        tools: [
          make("p", { class: "hint" }, "Drag over the picture to draw a box."),
          button({ text: "Done", className: "primary", onclick: overlay.close }),
        ],
      },
      () => (sheet = null),
    );
    showBoxes();
  }

  /** @param {PointerEvent} down */
  function dragBox(down) {
    const from = overlay.at(down);
    const shape = make("div", { class: "box" });
    sheet?.append(shape);
    let box = boxBetween(from, from);
    /** @param {PointerEvent} event */
    const move = (event) => {
      box = boxBetween(from, overlay.at(event));
      putBox(shape, box);
    };
    const end = () => {
      window.removeEventListener("pointermove", move);
      shape.remove();
      if (box[2] >= LEAST && box[3] >= LEAST) set([...state.get().regions, { box, prompt: "" }]);
    };
    window.addEventListener("pointermove", move);
    window.addEventListener("pointerup", end, { once: true });
  }

  function showBoxes() {
    sheet?.replaceChildren(
      ...state.get().regions.map((region, at) => {
        const shape = make("div", { class: "box" }, `${at + 1} ${region.prompt}`);
        putBox(shape, region.box);
        return shape;
      }),
    );
  }

  let count = state.get().regions.length;
  state.watch((settings, changed) => {
    if (!changed.has("regions")) return;
    showBoxes();
    // Fields that are being typed into stay; only another number of boxes needs others.
    if (settings.regions.length !== count) build();
    count = settings.regions.length;
  });
  build();
}

/**
 * @param {[number, number]} from
 * @param {[number, number]} to
 * @returns {Region["box"]} left, top, width, height, to a thousandth
 */
function boxBetween(from, to) {
  const left = Math.min(from[0], to[0]);
  const top = Math.min(from[1], to[1]);
  const sides = [left, top, Math.abs(from[0] - to[0]), Math.abs(from[1] - to[1])];
  return /** @type {Region["box"]} */ (sides.map((side) => Math.floor(side * 1000) / 1000));
}

/** @param {HTMLElement} shape @param {Region["box"]} box */
function putBox(shape, [left, top, width, height]) {
  Object.assign(shape.style, {
    left: `${left * 100}%`,
    top: `${top * 100}%`,
    width: `${width * 100}%`,
    height: `${height * 100}%`,
  });
}
