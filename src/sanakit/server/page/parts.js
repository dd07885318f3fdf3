// Small parts that several panels are made of.

import { make } from "./dom.js";

/**
 * A slider with its label and its value.
 * @param {string} label
 * @param {{id?: string, min: number, max: number, step: number, value: number}} bounds
 * @param {(value: number) => void} onchange
 */
export function range(label, bounds, onchange) {
  // No <output>: a label names its first control, and that would be it.
  const shown = make("span", {}, String(bounds.value));
  const input = make("input", {
    type: "range",
    ...bounds,
    oninput: () => {
      shown.textContent = input.value;
      onchange(Number(input.value));
    },
  });
  return make("label", { class: "field" }, make("span", { class: "label card-head" }, label, shown), input);
}

/**
 * A button that opens the system's dialog for one picture.
 * @param {string} text
 * @param {(file: File) => void} onchoose
 */
export function filePicker(text, onchoose) {
  const input = make("input", {
    type: "file",
    accept: "image/*",
    class: "unseen",
    onchange: () => {
      const file = input.files?.[0];
      if (file) onchoose(file);
      input.value = ""; // the same file may be chosen again
    },
  });
  return make("label", { class: "file" }, text, input);
}
