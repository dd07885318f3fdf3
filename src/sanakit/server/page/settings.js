// What the form holds, kept for the next visit, and the change from there to an order for the server and back.

/** @typedef {import("./types.js").Settings} Settings */
/** @typedef {import("./types.js").Model} Model */
/** @typedef {import("./types.js").Capabilities} Capabilities */

const PLACE = "sanakit-settings";
const KEPT = [
  "model",
  "prompt",
  "negative",
  "width",
  "height",
  "steps",
  "guidance",
  "seed",
  "locked",
  "count",
  "solver",
  "live",
];
/** Steps while typing, of a model that was not made for few: shapes and colours are there, edges are soft. */
const LIVE_STEPS = 6;
export const DEFAULT_STRENGTH = { whole: 0.5, masked: 1, words: 0.7 }; // as of `sanakit edit`

/** @param {Model} model @returns {Settings} */
export function defaultSettings(model) {
  return {
    model: model.name,
    ...model.defaults,
    prompt: "",
    negative: "",
    seed: "0",
    locked: false,
    count: 1,
    live: false,
    edit: null,
    regions: [],
    loras: {},
    control: null,
  };
}

/**
 * @param {Capabilities} capabilities
 * @param {string} [name]
 * @returns {Model} the model, or the server's first choice
 */
export function modelOf(capabilities, name) {
  const models = capabilities.models;
  return models.find((model) => model.name === name) ?? models.find((model) => model.default) ?? models[0];
}

/**
 * @param {Capabilities} capabilities
 * @returns {Settings} those of the last visit, as far as the server still has them
 */
export function loadSettings(capabilities) {
  const kept = readKept();
  const model = modelOf(capabilities, kept.model);
  const same = model.name === kept.model;
  const fits = Object.fromEntries(
    Object.entries(kept).filter(([name]) => KEPT.includes(name) && (same || !(name in model.defaults))),
  );
  return { ...defaultSettings(model), ...fits, model: model.name };
}

/** @returns {Record<string, any>} */
function readKept() {
  try {
    return JSON.parse(localStorage.getItem(PLACE) ?? "{}");
  } catch {
    return {};
  }
}

/** @param {Settings} settings */
export function keepSettings(settings) {
  localStorage.setItem(PLACE, JSON.stringify(settings, ["model", ...KEPT]));
}

/** A seed as dice throw it: 32 bits are enough to never meet one again, and short enough to read. */
export function rollSeed() {
  return String(crypto.getRandomValues(new Uint32Array(1))[0]);
}

/**
 * The order of a job.
 * @param {Settings} settings
 * @param {{token: string, model: Model}|null} [live] of drawing while typing, where the picture is to come soon rather
 *   than to be finished: older jobs of the same token are stale
 */
export function orderOf(settings, live = null) {
  const { edit, control, regions } = settings;
  const request = {
    prompt: settings.prompt,
    negative: settings.negative,
    steps: live ? liveSteps(settings, live.model) : settings.steps,
    guidance: settings.guidance,
    seed: settings.seed,
    count: live ? 1 : settings.count,
    solver: settings.solver,
    // A picture that is changed keeps its own size.
    ...(edit ? editFields(edit) : { width: settings.width, height: settings.height }),
    ...(regions.length ? { regions: regions.filter((region) => region.prompt.trim()) } : {}),
    ...(Object.keys(settings.loras).length
      ? { loras: Object.entries(settings.loras).map(([name, weight]) => ({ name, weight })) }
      : {}),
    ...(control?.picture ? { controls: [control] } : {}),
  };
  const inputs = edit ? { inputs: { source: edit.source, ...(edit.mask ? { mask: edit.mask } : {}) } } : {};
  return { model: settings.model, ...(live ? { live: live.token } : {}), ...inputs, request };
}

/** @param {Settings} settings @param {Model} model */
export function liveSteps(settings, model) {
  return model.few_steps ? settings.steps : Math.min(settings.steps, LIVE_STEPS);
}

/** @param {import("./types.js").Edit} edit */
function editFields(edit) {
  return {
    strength: edit.strength,
    ...(edit.sourcePrompt.trim() ? { source_prompt: edit.sourcePrompt } : {}),
    ...(edit.outpaint.some((margin) => margin > 0) ? { outpaint: edit.outpaint } : {}),
  };
}

/**
 * The settings of a picture's request; files it was made with (a source, controls) are known to it by name only.
 * @param {Record<string, any>} request
 * @param {string|null} modelName
 * @param {Capabilities} capabilities
 * @returns {{settings: Partial<Settings>, missing: string[]}} missing: what the user has to give again
 */
export function settingsOf(request, modelName, capabilities) {
  const known = capabilities.models.find((model) => model.name === modelName);
  const plain = ["prompt", "negative", "width", "height", "steps", "guidance", "solver", "count"];
  const given = Object.fromEntries(
    plain.filter((name) => request[name] != null).map((name) => [name, request[name]]),
  );
  const offered = new Set(capabilities.loras.map((lora) => lora.name));
  const loras = /** @type {{name: string, weight: number}[]} */ (request.loras ?? []);
  const missing = [
    ...(modelName && !known ? [`the model ${modelName}`] : []),
    ...(request.source ? [`the picture ${request.source.name}`] : []),
    ...loras.filter(({ name }) => !offered.has(name)).map(({ name }) => `the LoRA ${name}`),
    ...(request.controls ?? []).map(
      (/** @type {any} */ control) => `the control picture ${control.picture.name}`,
    ),
  ];
  const settings = {
    ...given,
    ...(known ? { model: known.name } : {}),
    ...(request.seed !== undefined ? { seed: String(request.seed), locked: true } : {}),
    edit: null,
    control: null,
    regions: regionsOf(request),
    loras: Object.fromEntries(
      loras.filter(({ name }) => offered.has(name)).map(({ name, weight }) => [name, weight]),
    ),
  };
  return { settings, missing };
}

/**
 * @param {Record<string, any>} request
 * @returns {import("./types.js").Region[]} its regions, with boxes in fractions: others are in pixels of the picture
 */
function regionsOf({ regions = [], width, height }) {
  return regions.map((/** @type {import("./types.js").Region} */ { box, prompt }) => {
    const sides = Math.max(...box) <= 1 ? [1, 1] : [width, height];
    return { box: box.map((side, at) => side / sides[at % 2]), prompt };
  });
}
