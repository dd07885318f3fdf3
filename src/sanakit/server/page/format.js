// Numbers and requests as text for readers.

/** @param {number} seconds */
export function duration(seconds) {
  if (seconds < 1) return "less than a second";
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return `${(seconds / 3600).toFixed(1)} h`;
}

/** @param {number} count @param {string} word */
export function counted(count, word) {
  return `${count} ${word}${count === 1 ? "" : "s"}`;
}

/**
 * How far a job is, in a sentence without its period.
 * @param {import("./types.js").Job} job
 */
export function progressText(job) {
  if (job.state === "queued") {
    return job.position ? `Waiting, ${counted(job.position, "job")} before it` : "Next in the queue";
  }
  if (job.state === "running") {
    const steps = job.step ? `Step ${job.step} of ${job.total}` : "Reading the prompt";
    return job.eta ? `${steps} · ${job.eta < 1 ? "" : "about "}${duration(job.eta)} left` : steps;
  }
  if (job.state === "failed") return job.error ?? "It failed";
  return job.state === "cancelled" ? "Cancelled" : "Done";
}

/**
 * What a picture is made with, in one line.
 * @param {import("./types.js").Job} job
 * @param {import("./types.js").Picture|null} picture null while it is being drawn
 */
export function recipe(job, picture) {
  const request = job.request;
  const { width, height, seed } = picture ?? request;
  return [
    job.model,
    `${width} × ${height}`,
    counted(request.steps, "step"),
    request.guidance > 1 ? `guidance ${request.guidance}` : null,
    `seed ${seed}`,
    request.solver,
    request.source ? `strength ${request.strength}` : null,
  ]
    .filter(Boolean)
    .join(" · ");
}
