// The form: prompt and settings, both ways between the fields and the state.

import { fillSelect, find, icon, make } from "./dom.js";
import { liveSteps, modelOf, rollSeed } from "./settings.js";
import { sizeOptions } from "./sizes.js";

/** @typedef {import("./types.js").Capabilities} Capabilities */
/** @typedef {import("./types.js").Settings} Settings */
/** @typedef {import("./state.js").State<Settings>} SettingsState */

const CUSTOM = "custom";
const NUMBERS = ["steps", "guidance", "count", "width", "height"];
const SLIDERS = ["steps", "guidance"];
const LARGEST_SEED = 2n ** 63n - 1n;

/**
 * @param {SettingsState} state
 * @param {Capabilities} capabilities
 */
export function startComposer(state, capabilities) {
  fillSelect(
    find("model"),
    capabilities.models.map((model) => model.name),
  );
  find("model-field").hidden = capabilities.models.length < 2 && !modelOf(capabilities).about;
  find("count").max = capabilities.limits.count;
  find("steps").max = capabilities.limits.steps;

  listenToText(state);
  for (const name of NUMBERS) listenToNumber(state, name, find(name));
  for (const name of SLIDERS) listenToNumber(state, name, find(`${name}-slider`));
  listenToSize(state);
  listenToSeed(state);
  find("model").addEventListener("change", () => {
    const model = modelOf(capabilities, find("model").value);
    state.set({ model: model.name, ...model.defaults });
  });
  find("live").addEventListener("change", () => {
    // Words are to change the picture, not the dice.
    state.set({ live: find("live").checked, ...(find("live").checked ? { locked: true } : {}) });
  });

  state.watch((settings, changed) => show(settings, changed, capabilities));
  showModel(state.get(), capabilities);
  show(state.get(), new Set(Object.keys(state.get())), capabilities);
}

/**
 * What is wrong in the form, where a value could not be taken; the field gets the focus.
 * @returns {Error|null}
 */
export function findMistake() {
  const field = find("composer").querySelector("[aria-invalid=true]");
  if (!field) return null;
  const group = field.closest("details");
  if (group) group.open = true;
  field.focus();
  const name = field.labels[0]?.textContent ?? field.getAttribute("aria-label");
  return new Error(`${name}: ${field.validationMessage || "this value is out of range."}`);
}

/** @param {SettingsState} state */
function listenToText(state) {
  for (const name of ["prompt", "negative", "solver"]) {
    find(name).addEventListener("input", () => state.set({ [name]: find(name).value }));
  }
}

/** @param {SettingsState} state @param {string} name @param {HTMLInputElement} input */
function listenToNumber(state, name, input) {
  input.addEventListener("input", () => {
    const valid = input.value !== "" && input.checkValidity();
    input.setAttribute("aria-invalid", String(!valid));
    if (valid) state.set({ [name]: Number(input.value) });
  });
}

/** @param {SettingsState} state */
function listenToSize(state) {
  find("size").addEventListener("change", () => {
    const chosen = find("size").value;
    find("custom-size").hidden = chosen !== CUSTOM;
    if (chosen === CUSTOM) return find("width").focus();
    const [width, height] = chosen.split("x").map(Number);
    state.set({ width, height });
  });
}

/** @param {SettingsState} state */
function listenToSeed(state) {
  const seed = find("seed");
  seed.addEventListener("input", () => {
    const valid = /^[0-9]{1,19}$/.test(seed.value) && BigInt(seed.value) <= LARGEST_SEED;
    seed.setAttribute("aria-invalid", String(!valid));
    // Whoever types a seed wants this one.
    if (valid) state.set({ seed: String(BigInt(seed.value)), locked: true });
  });
  find("seed-dice").addEventListener("click", () => state.set({ seed: rollSeed() }));
  find("seed-lock").addEventListener("click", () => state.set({ locked: !state.get().locked }));
}

/** @param {Settings} settings @param {Set<string>} changed @param {Capabilities} capabilities */
function show(settings, changed, capabilities) {
  if (changed.has("model")) showModel(settings, capabilities);
  for (const name of ["prompt", "negative", "solver", "seed", ...NUMBERS]) {
    const field = find(name);
    // What is being typed is not written over: "1." on the way to "1.5" is the number 1.
    if (field !== document.activeElement || field.type !== "number")
      write(field, String(settings[/** @type {keyof Settings} */ (name)]));
  }
  for (const name of SLIDERS)
    write(find(`${name}-slider`), String(settings[/** @type {keyof Settings} */ (name)]));
  find("live").checked = settings.live;
  if (changed.has("width") || changed.has("height")) showSize(settings);
  showLock(settings.locked);
  showLiveHint(settings, capabilities);
  find("size").disabled = settings.edit !== null;
}

/** @param {HTMLInputElement} field @param {string} value */
function write(field, value) {
  if (field.value !== value) field.value = value;
}

/** @param {Settings} settings @param {Capabilities} capabilities */
function showModel(settings, capabilities) {
  const model = modelOf(capabilities, settings.model);
  find("model").value = model.name;
  find("model-hint").replaceChildren(...about(model));
  fillSelect(find("solver"), model.solvers);
  fillSelect(find("size"), [...sizeOptions(model.defaults), [CUSTOM, "Another size…"]]);
  for (const side of ["width", "height"]) find(side).max = model.max_side;
  find("steps-slider").max = model.few_steps ? 8 : 50;
  showSize(settings);
}

/**
 * @param {import("./types.js").Model} model
 * @returns {(Node|string)[]} what it draws, and the words it knows if they are few
 */
function about(model) {
  const words = model.words?.map((line) => make("li", {}, line));
  return [
    ...(model.about ? [`${model.about}.`] : []),
    ...(words ? [make("details", {}, make("summary", {}, "Words it knows"), make("ul", {}, ...words))] : []),
  ];
}

/** @param {Settings} settings */
function showSize(settings) {
  const size = `${settings.width}x${settings.height}`;
  const preset = [...find("size").options].some((option) => option.value === size);
  find("size").value = preset ? size : CUSTOM;
  find("custom-size").hidden = preset;
}

/** @param {boolean} locked */
function showLock(locked) {
  const lock = find("seed-lock");
  lock.setAttribute("aria-pressed", String(locked));
  lock.setAttribute("aria-label", "Keep the seed");
  lock.title = locked ? "Keeps the seed: the same picture again" : "Another seed for every picture";
  lock.replaceChildren(icon(locked ? "lock" : "unlock"));
}

/** @param {Settings} settings @param {Capabilities} capabilities */
function showLiveHint(settings, capabilities) {
  const hint = find("live-hint");
  hint.hidden = !settings.live;
  const model = modelOf(capabilities, settings.model);
  const steps = liveSteps(settings, model);
  hint.textContent =
    steps < settings.steps
      ? `Pictures of ${steps} steps follow your typing; Draw makes one of ${settings.steps}. The seed stays.`
      : "A new picture follows every pause. The seed stays.";
}
