// Two pictures over one another, and a slider between them.

import { find, make } from "./dom.js";
import { recipe } from "./format.js";

/** @typedef {import("./types.js").Job} Job */
/** @typedef {import("./types.js").Picture} Picture */
/** @typedef {{job: Job, picture: Picture}} Side */

export function createCompare() {
  const panel = find("panel-compare");
  /** @type {Side|null} */
  let first = null;
  /** @type {Side|null} */
  let second = null;

  /** @param {string} text */
  const say = (text) => panel.replaceChildren(make("p", { class: "hint" }, text));

  function show() {
    if (!first) return say("Choose Compare at a picture, then another picture in the gallery.");
    if (!second) return say("Now choose another picture in the gallery.");
    const range = make("input", {
      type: "range",
      class: "versus-range",
      min: 0,
      max: 100,
      value: 50,
      step: 0.5,
      "aria-label": "How much of the second picture is covered",
    });
    const frame = make(
      "div",
      { class: "versus" },
      make("img", { src: first.picture.url, alt: `First: ${first.job.request.prompt}` }),
      make("img", { src: second.picture.url, alt: `Second: ${second.job.request.prompt}`, class: "after" }),
      make("div", { class: "edge" }),
      range,
    );
    range.addEventListener("input", () => frame.style.setProperty("--cut", `${range.value}%`));
    panel.replaceChildren(frame, make("div", { class: "versus-names" }, caption(first), caption(second)));
  }

  show();
  return {
    /** @param {Job} job @param {Picture} picture */
    begin(job, picture) {
      first = { job, picture };
      second = null;
      show();
    },
    /** @returns {boolean} whether the next picture that is chosen is the second of a pair */
    waits: () => first !== null && !panel.hidden,
    /** @param {Job} job @param {Picture} picture */
    add(job, picture) {
      second = { job, picture };
      show();
    },
  };
}

/** @param {Side} side */
function caption({ job, picture }) {
  return make(
    "div",
    {},
    make("p", {}, job.request.prompt),
    make("p", { class: "hint" }, recipe(job, picture)),
  );
}
