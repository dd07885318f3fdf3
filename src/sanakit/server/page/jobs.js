// The jobs that this page follows: ordered here, or found unfinished when the page was opened.

import { ApiError } from "./api.js";

/** @typedef {import("./types.js").Job} Job */
/** @typedef {import("./types.js").JobEvent} JobEvent */

const FINISHED = new Set(["done", "failed", "cancelled"]);
/** A browser opens six connections to a server; what is left is for pictures, requests and drawing while typing. */
const MOST_STREAMS = 3;
const WAITS = { first: 500, longest: 10_000 }; // milliseconds between two tries to reach a server that went away

/** @param {Job} job */
export const isFinished = (job) => FINISHED.has(job.state);

/**
 * @param {import("./api.js").Api} api
 * @param {{onEvent: (event: JobEvent) => void, onReach: (reached: boolean) => void}} listeners
 */
export function followJobs(api, { onEvent, onReach }) {
  /** @type {Map<string, Job>} */
  const followed = new Map();
  /** Jobs whose turn to be listened to has not come; the server draws in order, so they lose nothing. */
  let waiting = /** @type {string[]} */ ([]);
  /** @type {Map<string, AbortController>} */
  const streams = new Map();
  let wait = WAITS.first;

  /** @param {JobEvent} event */
  function tell(event) {
    if (isFinished(event.job)) followed.delete(event.job.id);
    else followed.set(event.job.id, event.job);
    onEvent(event);
  }

  /** Listen once, to the end of the job or of the connection. @param {string} id @param {AbortSignal} signal */
  async function listen(id, signal) {
    try {
      for await (const event of api.watch(id, { signal })) {
        onReach(true);
        wait = WAITS.first;
        tell(event);
      }
    } catch (error) {
      if (signal.aborted) return; // it made room for another one
      if (error instanceof ApiError && error.status === 404) return void followed.delete(id);
      onReach(false);
      await new Promise((resolve) => setTimeout(resolve, wait));
      wait = Math.min(wait * 2, WAITS.longest);
    }
  }

  /** @param {string} id */
  async function open(id) {
    const stream = new AbortController();
    streams.set(id, stream);
    await listen(id, stream.signal);
    streams.delete(id);
    if (followed.has(id)) waiting.push(id);
    fill();
  }

  function fill() {
    waiting = waiting.filter((id) => followed.has(id));
    while (streams.size < MOST_STREAMS && waiting.length) open(/** @type {string} */ (waiting.shift()));
  }

  return {
    /**
     * Follow a job to its end, whatever happens to the connection.
     * @param {Job} job
     * @param {boolean} [first] whether it is the one to look at, before which others wait
     */
    follow(job, first = false) {
      if (followed.has(job.id)) return;
      followed.set(job.id, job);
      waiting = first ? [job.id, ...waiting] : [...waiting, job.id];
      if (first && streams.size >= MOST_STREAMS) [...streams.values()][0].abort();
      fill();
    },
    /** @returns {Job[]} those that are not finished, the oldest first */
    unfinished: () => [...followed.values()],
  };
}
