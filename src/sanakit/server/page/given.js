// What a job was given: the picture that it changes, its mask, and what steers it, for the form to hold again.

import { readPicture } from "./files.js";

/** @typedef {import("./types.js").Job} Job */
/** @typedef {import("./types.js").Edit} Edit */
/** @typedef {import("./types.js").ControlChoice} ControlChoice */

/**
 * @param {import("./api.js").Api} api
 * @param {Job} job
 * @param {import("./types.js").Capabilities} capabilities
 * @returns {Promise<{edit: Edit|null, control: ControlChoice|null}>}
 */
export async function givenTo(api, job, capabilities) {
  const { source, mask, controls = [], ...request } = job.request;
  /** @param {{sha256: string}} file */
  const fetched = async (file) => readPicture(await api.input(job.id, file.sha256));
  const [picture, covered] = await Promise.all([source && fetched(source), mask && fetched(mask)]);
  const offered = capabilities.controls.map(({ name }) => name);
  const steering = controls.length === 1 && offered.includes(controls[0].network.name) ? controls[0] : null;
  return {
    edit: picture && {
      source: picture.url,
      name: source.name,
      width: picture.width,
      height: picture.height,
      mask: covered?.url ?? null,
      strength: request.strength,
      sourcePrompt: request.source_prompt ?? "",
      outpaint: request.outpaint ?? [0, 0, 0, 0],
    },
    control: steering && {
      name: steering.network.name,
      picture: (await fetched(steering.picture)).url,
      annotator: null, // it was read from its picture already
      scale: steering.scale,
      start: steering.start,
      end: steering.end,
      fit: steering.fit,
    },
  };
}
