// Every picture of this server that the user may see, the newest first: found again after a restart.

import { find, make } from "./dom.js";
import { counted } from "./format.js";

/** @typedef {import("./types.js").Job} Job */
/** @typedef {import("./types.js").Picture} Picture */

const PAGE = 48; // jobs at a time
const PAUSE = 250; // milliseconds without a key before the search asks the server

/**
 * @param {import("./api.js").Api} api
 * @param {{onChoose: (job: Job, picture: Picture) => void, onFault: (error: Error) => void}} listeners
 */
export function createGallery(api, { onChoose, onFault }) {
  const shelf = find("shelf");
  let oldest = /** @type {string|null} */ (null);
  let timer = 0;
  let search = 0; // answers to an older question are thrown away
  /** Each job as it was last heard of: a card may be older. @type {Map<string, Job>} */
  const known = new Map();

  async function load(more = false) {
    const mine = (search += 1);
    try {
      const text = find("search").value.trim();
      const jobs = await api.jobs({ text, before: more ? oldest : null, limit: PAGE });
      if (mine !== search) return;
      if (!more) shelf.replaceChildren();
      for (const job of jobs) shelf.append(...cards(job));
      oldest = jobs.at(-1)?.id ?? oldest;
      find("more").hidden = jobs.length < PAGE;
      showHint(text);
    } catch (error) {
      onFault(/** @type {Error} */ (error));
    }
  }

  /** @param {Job} job @returns {HTMLElement[]} */
  function cards(job) {
    if (job.live) return []; // drawn while typing, and gone with the next one
    known.set(job.id, job);
    return [...job.pictures].reverse().map((picture) => card(job, picture));
  }

  /** @param {Job} job @param {Picture} picture */
  function card(job, picture) {
    const image = make("img", {
      src: `${picture.url}?width=320`,
      alt: "",
      loading: "lazy",
      width: 320,
      height: 320,
    });
    const name = `${job.request.prompt || "without a prompt"}, seed ${picture.seed}`;
    const choose = make(
      "button",
      {
        type: "button",
        title: job.request.prompt,
        "aria-label": name,
        "data-picture": picture.id,
        onclick: () => {
          mark(picture.id);
          onChoose(known.get(job.id) ?? job, picture);
        },
      },
      image,
    );
    return make("li", { "data-job": job.id }, choose);
  }

  /** @param {string} text what was searched for */
  function showHint(text) {
    const hint = find("shelf-hint");
    hint.hidden = shelf.children.length > 0;
    hint.textContent = text
      ? `No picture has “${text}” in its prompt.`
      : "Pictures that you draw gather here.";
  }

  /** @param {string} id of the picture that is shown */
  function mark(id) {
    for (const each of shelf.querySelectorAll("button"))
      each.setAttribute("aria-current", String(each.dataset.picture === id));
  }

  find("search").addEventListener("input", () => {
    clearTimeout(timer);
    timer = window.setTimeout(load, PAUSE);
  });
  find("more").addEventListener("click", () => load(true));
  shelf.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    const buttons = [...shelf.querySelectorAll("button")];
    const at = buttons.indexOf(/** @type {HTMLButtonElement} */ (document.activeElement));
    if (step && at >= 0) buttons[at + step]?.focus();
  });

  return {
    load,
    mark,
    /** Put what was just finished of a job to the front. @param {Job} job */
    add(job) {
      const fresh = cards(job).filter((each) => !shelf.querySelector(`[data-picture="${pictureOf(each)}"]`));
      if (find("search").value.trim()) return;
      shelf.prepend(...fresh);
      showHint("");
    },
    /** @param {string} job its id */
    remove(job) {
      for (const each of shelf.querySelectorAll(`[data-job="${job}"]`)) each.remove();
      showHint(find("search").value.trim());
    },
  };
}

/**
 * Say how long pictures stay, where that is bounded.
 * @param {import("./types.js").Limits} limits
 */
export function showRetention({ keep_days: days, keep_pictures: pictures }) {
  const bounds = [
    ...(pictures ? [`the newest ${counted(pictures, "picture")}`] : []),
    ...(days ? [`what is younger than ${counted(days, "day")}`] : []),
  ];
  const place = find("retention");
  place.hidden = !bounds.length;
  place.textContent = `This server keeps ${bounds.join(", and of these ")}.`;
}

/** @param {HTMLElement} card @returns {string|undefined} the id of its picture */
const pictureOf = (card) => card.querySelector("button")?.dataset.picture;
