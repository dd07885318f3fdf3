// What newcomers see before the first picture: prompts to begin with.

import { button, find, make } from "./dom.js";

const TOYBOX_EXAMPLES = [
  "a large red metal sphere left of a small blue rubber cube on grass at sunset",
  "three green cones on sand at noon",
  "a striped pink cylinder on wood at night",
  "a purple pyramid behind a yellow cube on snow",
];
const EXAMPLES = [
  "a lighthouse on a cliff in a storm, oil painting",
  "a red fox asleep in fresh snow, photograph",
  "a quiet library with tall windows, morning light",
];

/**
 * @param {boolean} toybox whether the server draws that world
 * @param {(prompt: string) => void} draw
 */
export function showExamples(toybox, draw) {
  find("empty").replaceChildren(
    make("strong", {}, "What would you like to see?"),
    make("p", {}, "Write a prompt, or begin with one of these."),
    make(
      "div",
      { class: "examples" },
      ...(toybox ? TOYBOX_EXAMPLES : EXAMPLES).map((prompt) => button({ text: prompt, onclick: () => draw(prompt) })),
    ),
  );
}
