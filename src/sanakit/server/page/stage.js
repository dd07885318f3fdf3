// The picture: what is being drawn, what was drawn, and what can be done with it.

import { announce } from "./announcer.js";
import { button, find, make } from "./dom.js";
import { progressText, recipe } from "./format.js";
import { isFinished } from "./jobs.js";

/** @typedef {import("./types.js").Job} Job */
/** @typedef {import("./types.js").JobEvent} JobEvent */
/** @typedef {import("./types.js").Picture} Picture */

/**
 * @typedef {object} Action    something to do with a picture
 * @property {string} icon
 * @property {string} text
 * @property {(job: Job, picture: Picture) => void} run
 * @property {(job: Job) => boolean} [fits]    whether it makes sense for pictures of this job
 */

/** @param {Action[]} actions */
export function createStage(actions) {
  const image = find("picture");
  /** @type {Job|null} */
  let job = null;
  /** @type {Picture|null} */
  let picture = null;

  /**
   * Turn to another job; the picture before stays until there is another one, so that nothing flickers.
   * @param {Job} next
   */
  function begin(next) {
    job = next;
    picture = null;
    showProgress(next, false);
    showStrip(next);
    showCaption(next, null);
  }

  /** @param {JobEvent} event of the job that is shown, or from now on is */
  function update(event) {
    if (job?.id !== event.job.id) begin(event.job);
    job = event.job;
    if (event.kind === "note") showCaption(job, picture);
    if (event.preview && !picture) showImage(event.preview, `Preview of: ${job.request.prompt}`, true);
    // A job may have ended before its events were asked for: then the first one brings its pictures.
    const finished = event.picture ?? job.pictures[0];
    if (finished && !picture) showPicture(job, finished);
    showProgress(job, true);
    showStrip(job);
  }

  /** @param {Job} of @param {Picture} chosen */
  function showPicture(of, chosen) {
    job = of;
    picture = chosen;
    showImage(chosen.url, of.request.prompt || "A picture without a prompt", false);
    showProgress(of, false);
    showStrip(of);
    showCaption(of, chosen);
  }

  /** Show a picture that was chosen, wherever the page is scrolled to. @param {Job} of @param {Picture} chosen */
  function choose(of, chosen) {
    showPicture(of, chosen);
    find("frame").scrollIntoView({ block: "nearest" });
  }

  /** @param {string} url @param {string} alt @param {boolean} preview */
  function showImage(url, alt, preview) {
    find("empty").hidden = true;
    image.hidden = false;
    image.alt = alt;
    image.toggleAttribute("data-preview", preview);
    image.src = url;
  }

  /** @param {Job} of @param {boolean} aloud whether its end is told to screen readers */
  function showProgress(of, aloud) {
    const busy = !isFinished(of);
    const failed = of.state === "failed" || of.state === "cancelled";
    find("progress").hidden = !busy && !failed;
    find("cancel").hidden = !busy;
    const share = of.total ? of.step / of.total : 0;
    const bar = find("progress-bar");
    bar.hidden = !busy;
    bar.setAttribute("aria-valuenow", String(Math.round(100 * share)));
    bar.style.setProperty("--done", String(share));
    find("progress-text").textContent = progressText(of);
    document.title = busy ? `${Math.round(100 * share)} % · sanakit` : "sanakit";
    if (aloud && !busy) announce(of.state === "done" ? `Drawn: ${of.request.prompt}` : progressText(of));
  }

  /** @param {Job} of */
  function showStrip(of) {
    const strip = find("strip");
    strip.hidden = of.pictures.length < 2;
    if (strip.hidden) return;
    strip.replaceChildren(
      ...of.pictures.map((each) => {
        const label = `Picture ${each.index + 1}, seed ${each.seed}`;
        const chosen = String(each.id === picture?.id);
        const small = make("img", { src: `${each.url}?width=160`, alt: "" });
        return make(
          "button",
          {
            type: "button",
            class: "quiet",
            "aria-label": label,
            "aria-pressed": chosen,
            onclick: () => showPicture(of, each),
          },
          small,
        );
      }),
    );
  }

  /** @param {Job} of @param {Picture|null} chosen null while nothing of it is finished */
  function showCaption(of, chosen) {
    const place = find("actions");
    find("caption").hidden = false;
    find("caption-prompt").textContent = of.request.prompt;
    find("caption-recipe").textContent = [recipe(of, chosen), ...of.notes].join("\n");
    // Actions of the picture before keep their place, so that nothing moves, and do nothing.
    place.inert = !chosen;
    if (!chosen) return;
    place.replaceChildren(
      ...actions
        .filter((action) => action.fits?.(of) ?? true)
        .map((action) =>
          button({ icon: action.icon, text: action.text, onclick: () => action.run(of, chosen) }),
        ),
    );
  }

  function clear() {
    job = picture = null;
    image.hidden = true;
    for (const id of ["progress", "strip", "caption", "cancel"]) find(id).hidden = true;
    find("empty").hidden = false;
  }

  return { begin, update, choose, showImage, clear, job: () => job, picture: () => picture };
}

/** @typedef {ReturnType<typeof createStage>} Stage */
