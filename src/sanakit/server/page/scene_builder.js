// The scene builder: choose things, colours and a place, and it writes the prompt.

import { button, make } from "./dom.js";
import { canRelate, firstScene, objectsIn, sceneWords } from "./scene.js";

/** @typedef {import("./types.js").Toybox} Toybox */
/** @typedef {import("./scene.js").Scene} Scene */
/** @typedef {import("./scene.js").Thing} Thing */

/** The colours as Toybox renders them (palette.py). */
const SWATCHES = /** @type {Record<string, string>} */ ({
  red: "#d81818",
  orange: "#ff8410",
  yellow: "#ffe21a",
  green: "#22a528",
  cyan: "#1fd8dc",
  blue: "#1c3fe0",
  purple: "#8426c4",
  pink: "#ff82bc",
  white: "#f4f4f4",
  black: "#262628",
});

/**
 * @param {HTMLElement} place
 * @param {Toybox} toybox
 * @param {(prompt: string) => void} write takes the prompt after each change
 */
export function startSceneBuilder(place, toybox, write) {
  let scene = firstScene(toybox);

  /** @param {Partial<Scene>} patch @param {boolean} [rebuild] whether the fields themselves change */
  function change(patch, rebuild = false) {
    scene = { ...scene, ...patch };
    if (rebuild) build();
    write(sceneWords(scene, toybox));
  }

  /** @param {number} at @param {Partial<Thing>} patch @param {boolean} [rebuild] */
  function changeThing(at, patch, rebuild) {
    change(
      { things: scene.things.map((thing, index) => (index === at ? { ...thing, ...patch } : thing)) },
      rebuild,
    );
  }

  function build() {
    const room = toybox.most_objects - objectsIn(scene);
    const cards = scene.things.map((thing, at) =>
      thingCard(toybox, thing, {
        name: `Thing ${at + 1}`,
        most: thing.count + room,
        change: (patch, rebuild) => changeThing(at, patch, rebuild),
        remove:
          scene.things.length > 1
            ? () => change({ things: scene.things.filter((_, index) => index !== at) }, true)
            : null,
      }),
    );
    const add = button({
      icon: "add",
      text: "Another thing",
      onclick: () =>
        change({ things: [...scene.things, { ...scene.things[0], size: "", material: "", count: 1 }] }, true),
    });
    add.disabled = room < 1;
    const relation = choice(
      "The first stands",
      ["", ...toybox.relations],
      scene.relation,
      (value) => change({ relation: value }),
      "anywhere",
    );
    relation.hidden = !canRelate(scene);
    place.replaceChildren(
      make(
        "div",
        { class: "stack" },
        ...cards,
        add,
        relation,
        make(
          "div",
          { class: "pair" },
          choice("Floor", ["", ...Object.keys(toybox.floors)], scene.floor, (value) =>
            change({ floor: value }),
          ),
          choice("Light", ["", ...Object.keys(toybox.lights)], scene.light, (value) =>
            change({ light: value }),
          ),
        ),
        button({ text: "Write the prompt", onclick: () => write(sceneWords(scene, toybox)) }),
      ),
    );
  }

  build();
}

/**
 * @param {Toybox} toybox
 * @param {Thing} thing
 * @param {{
 *   name: string,
 *   most: number,
 *   change: (patch: Partial<Thing>, rebuild?: boolean) => void,
 *   remove: (() => void)|null,
 * }} options
 */
function thingCard(toybox, thing, { name, most, change, remove }) {
  const counts = Array.from({ length: most }, (_, index) => String(index + 1));
  return make(
    "div",
    { class: "card", role: "group", "aria-label": name },
    make(
      "div",
      { class: "card-head" },
      make("span", { class: "label" }, name),
      remove &&
        button({
          icon: "close",
          label: `Remove ${name.toLowerCase()}`,
          className: "square",
          onclick: remove,
        }),
    ),
    make(
      "div",
      { class: "pair" },
      choice("Shape", Object.keys(toybox.shapes), thing.shape, (shape) => change({ shape })),
      choice("How many", counts, String(thing.count), (count) => change({ count: Number(count) }, true)),
      choice("Size", ["", ...toybox.sizes], thing.size, (size) => change({ size })),
      choice("Material", ["", ...toybox.materials], thing.material, (material) => change({ material })),
    ),
    swatches(name, ["", ...toybox.colours], thing.colour, (colour) => change({ colour })),
  );
}

/**
 * A select with its label; "" is what is not said.
 * @param {string} label
 * @param {string[]} words
 * @param {string} chosen
 * @param {(word: string) => void} onchange
 * @param {string} [open] the text of ""
 */
function choice(label, words, chosen, onchange, open = "any") {
  const select = make(
    "select",
    { onchange: () => onchange(select.value) },
    ...words.map((word) => make("option", { value: word, selected: word === chosen }, word || open)),
  );
  return make("label", { class: "field" }, make("span", { class: "label" }, label), select);
}

/** @param {string} group @param {string[]} colours @param {string} chosen @param {(colour: string) => void} onchange */
function swatches(group, colours, chosen, onchange) {
  const fields = colours.map((colour) => {
    const dot = make("span", { title: colour || "any" });
    if (SWATCHES[colour]) dot.style.setProperty("--swatch", SWATCHES[colour]);
    return make(
      "label",
      { class: "swatch" },
      make("input", {
        type: "radio",
        name: `colour of ${group}`,
        "aria-label": colour || "any colour",
        checked: colour === chosen,
        onchange: () => onchange(colour),
      }),
      dot,
    );
  });
  return make("fieldset", { class: "swatches" }, make("legend", { class: "label" }, "Colour"), ...fields);
}
