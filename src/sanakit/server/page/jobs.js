// The jobs that this page follows: ordered here, or found unfinished when the page was opened.

import { ApiError } from "./api.js";

/** @typedef {import("./types.js").Job} Job */
/** @typedef {import("./types.js").JobEvent} JobEvent */

const FINISHED = new Set(["done", "failed", "cancelled"]);
const LONGEST_WAIT = 10_000; // milliseconds between two tries to reach a server that went away

/** @param {Job} job */
export const isFinished = (job) => FINISHED.has(job.state);

/**
 * @param {import("./api.js").Api} api
 * @param {{onEvent: (event: JobEvent) => void, onReach: (reached: boolean) => void}} listeners
 */
export function followJobs(api, { onEvent, onReach }) {
  /** @type {Map<string, Job>} */
  const followed = new Map();

  /** @param {JobEvent} event */
  function tell(event) {
    if (isFinished(event.job)) followed.delete(event.job.id);
    else followed.set(event.job.id, event.job);
    onEvent(event);
  }

  /** Follow a job to its end, whatever happens to the connection. @param {Job} job */
  async function follow(job) {
    if (followed.has(job.id)) return;
    followed.set(job.id, job);
    let wait = 500;
    while (followed.has(job.id)) {
      try {
        for await (const event of api.watch(job.id)) {
          onReach(true);
          wait = 500;
          tell(event);
        }
        if (!followed.has(job.id)) return;
        const now = await api.job(job.id);
        if (isFinished(now))
          tell({ kind: now.state, job: now, preview: null, picture: null, message: now.error });
      } catch (error) {
        if (error instanceof ApiError && error.status === 404) followed.delete(job.id);
        onReach(false);
      }
      await new Promise((resolve) => setTimeout(resolve, wait));
      wait = Math.min(wait * 2, LONGEST_WAIT);
    }
  }

  return {
    follow,
    /** @returns {Job[]} those that are not finished, the oldest first */
    unfinished: () => [...followed.values()],
  };
}
