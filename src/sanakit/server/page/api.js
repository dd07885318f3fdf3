// The server's HTTP API.

import { readEvents } from "./event_stream.js";
import { readJson, writeJson } from "./exact_json.js";

/** @typedef {import("./types.js").Job} Job */
/** @typedef {import("./types.js").JobEvent} JobEvent */
/** @typedef {import("./types.js").Capabilities} Capabilities */

const KEY = "sanakit-key"; // of sessionStorage: it goes with the tab
const SESSION = 3_600_000; // milliseconds until the next one is asked for; each lasts a day

/** What the server refused, in its words. */
export class ApiError extends Error {
  /**
   * @param {string} message
   * @param {{status: number, field?: string|null, retryAfter?: number|null}} details
   */
  constructor(message, details) {
    super(message);
    this.status = details.status;
    this.field = details.field ?? null;
    this.retryAfter = details.retryAfter ?? null;
  }
}

/** @param {{askForKey: (refused: boolean) => Promise<string|null>}} options asks the user for an API key */
export function createApi({ askForKey }) {
  /**
   * @param {string} path
   * @param {RequestInit} [options]
   * @returns {Promise<Response>}
   */
  async function send(path, options = {}) {
    const key = sessionStorage.getItem(KEY);
    const headers = new Headers(options.headers);
    if (key) headers.set("Authorization", `Bearer ${key}`);
    const response = await reach(path, { ...options, headers });
    if (response.status !== 401) return response.ok ? response : Promise.reject(await refusal(response));
    sessionStorage.removeItem(KEY);
    const given = await askForKey(key !== null);
    if (!given) throw await refusal(response);
    sessionStorage.setItem(KEY, given);
    await openSession();
    return send(path, options);
  }

  /** Ask for the cookie that pictures are fetched by: an <img> can't send the key. */
  async function openSession() {
    if (sessionStorage.getItem(KEY)) await send("/api/session", { method: "POST" });
  }

  /** @param {string} path @param {RequestInit} [options] */
  const ask = async (path, options) => readJson(await (await send(path, options)).text());

  /** @param {unknown} body */
  const posted = (body) => ({
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: writeJson(body),
  });

  return {
    /** Have pictures shown as long as the page is open. */
    async keepSession() {
      await openSession();
      setInterval(() => openSession().catch(() => {}), SESSION); // a server that is away is seen elsewhere
    },

    /** @returns {Promise<Capabilities>} */
    capabilities: () => ask("/api/capabilities"),

    /** @param {object} order @returns {Promise<Job>} */
    createJob: (order) => ask("/api/jobs", posted(order)),

    /**
     * Draw a job again, with the pictures that it was given.
     * @param {string} id
     * @param {object} request what is to be other than there
     * @returns {Promise<Job>}
     */
    recreate: (id, request) => ask(`/api/jobs/${id}/recreate`, posted({ request })),

    /** A picture that a job was given. @param {string} id @param {string} sha256 @returns {Promise<Blob>} */
    input: async (id, sha256) => (await send(`/api/jobs/${id}/inputs/${sha256}`)).blob(),

    /** @param {object} order @returns {Promise<Job[][]>} a row for each value of y */
    createGrid: async (order) => (await ask("/api/grid", posted(order))).jobs,

    /** @param {Record<string, string|number|null|undefined>} query @returns {Promise<Job[]>} */
    async jobs(query) {
      const given = Object.entries(query).filter(
        ([, value]) => value !== null && value !== undefined && value !== "",
      );
      return (
        await ask(`/api/jobs?${new URLSearchParams(given.map(([name, value]) => [name, String(value)]))}`)
      ).jobs;
    },

    /** @param {string} id @returns {Promise<Job>} */
    job: (id) => ask(`/api/jobs/${id}`),

    /** @param {string} id @returns {Promise<Job>} */
    cancel: (id) => ask(`/api/jobs/${id}/cancel`, { method: "POST" }),

    /**
     * Forget a job and its pictures; this also works while the page is being closed.
     * @param {string} id
     */
    remove: async (id) => void (await send(`/api/jobs/${id}`, { method: "DELETE", keepalive: true })),

    /**
     * The settings inside of a picture, which the server does not keep.
     * @param {Blob} picture
     * @returns {Promise<{request: Record<string, any>, model: string|null, notes: string[]}>}
     */
    read: (picture) =>
      ask("/api/read", { method: "POST", headers: { "Content-Type": "image/png" }, body: picture }),

    /**
     * What happens to a job, until it ends.
     * @param {string} id
     * @param {{signal?: AbortSignal, previews?: boolean, leave?: "keep"|"cancel"}} [options]
     * @returns {AsyncGenerator<JobEvent>}
     */
    async *watch(id, { signal, previews = true, leave = "keep" } = {}) {
      const response = await send(`/api/jobs/${id}/events?previews=${previews ? 1 : 0}&leave=${leave}`, {
        signal,
      });
      if (!response.body) return;
      for await (const { event, data } of readEvents(response.body)) yield { kind: event, ...readJson(data) };
    },
  };
}

/** @typedef {ReturnType<typeof createApi>} Api */

/** @param {string} path @param {RequestInit} options */
async function reach(path, options) {
  try {
    return await fetch(path, options);
  } catch (error) {
    if (error instanceof DOMException && error.name === "AbortError") throw error;
    throw new ApiError("The server can't be reached.", { status: 0 });
  }
}

/** @param {Response} response */
async function refusal(response) {
  const fault = await response
    .json()
    .then((body) => body.error)
    .catch(() => null);
  const seconds = Number(response.headers.get("Retry-After"));
  return new ApiError(sentence(fault?.message ?? `The server answered ${response.status}.`), {
    status: response.status,
    field: fault?.field,
    retryAfter: seconds > 0 ? seconds : null,
  });
}

/** @param {string} text a message of the server, which begins in lower case and ends without a period */
function sentence(text) {
  const first = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?]$/.test(first) ? first : `${first}.`;
}
