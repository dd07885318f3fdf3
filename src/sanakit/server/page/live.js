// Drawing while typing: after each pause a new job, which makes the ones before it stale.

/** @typedef {import("./types.js").Job} Job */
/** @typedef {import("./types.js").JobEvent} JobEvent */

const PAUSE = 150; // milliseconds without a change; shorter than between two words, longer than between two letters

/**
 * @param {import("./api.js").Api} api
 * @param {{
 *   order: (token: string) => object,
 *   onEvent: (event: JobEvent) => void,
 *   onFault: (error: Error) => void,
 * }} options
 */
export function createLive(api, { order, onEvent, onFault }) {
  const token = crypto.randomUUID(); // the server cancels older jobs of the same token
  let timer = 0;
  let current = new AbortController();
  /** The live job that is being drawn, and the one that is shown; others nobody needs. @type {string|null} */
  let drawn = null;
  /** @type {string|null} */
  let shown = null;

  async function draw() {
    current.abort();
    const mine = (current = new AbortController());
    drop(drawn);
    try {
      // Not cut off: a job whose id nobody learns would stay.
      const job = await api.createJob(order(token));
      if (mine.signal.aborted) return drop(job.id);
      drawn = job.id;
      for await (const event of api.watch(job.id, { signal: mine.signal, leave: "cancel" })) {
        if (mine.signal.aborted) return;
        onEvent(event);
        if (event.kind !== "done") continue;
        drop(shown);
        [drawn, shown] = [null, job.id];
      }
    } catch (error) {
      if (!mine.signal.aborted) onFault(/** @type {Error} */ (error));
    }
  }

  /** Forget a live job. @param {string|null} id */
  function drop(id) {
    if (id) api.remove(id).catch(() => {}); // it may be gone, and one that stays is no harm
  }

  return {
    /** Draw after the pause, unless something changes again. */
    touch() {
      clearTimeout(timer);
      timer = window.setTimeout(draw, PAUSE);
    },
    stop() {
      clearTimeout(timer);
      current.abort();
      drop(drawn);
      drop(shown); // the picture stays on the page until there is another one
      drawn = shown = null;
    },
  };
}
