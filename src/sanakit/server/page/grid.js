// X/Y grids: the same request with every pair of values of two fields.

import { button, find, make } from "./dom.js";
import { counted, progressText } from "./format.js";
import { modelOf, orderOf } from "./settings.js";

/** @typedef {import("./types.js").Job} Job */
/** @typedef {import("./types.js").JobEvent} JobEvent */
/** @typedef {import("./types.js").Settings} Settings */
/** @typedef {import("./types.js").Capabilities} Capabilities */

/**
 * @typedef {object} Field    a field of a request that a side of a grid may go along
 * @property {string} text
 * @property {"number"|"text"} kind
 * @property {(settings: Settings, capabilities: Capabilities) => (string|number)[]} values    to begin with
 */

const FIELDS = /** @type {Record<string, Field>} */ ({
  steps: {
    text: "Steps",
    kind: "number",
    values: ({ steps }) =>
      [...new Set([1, 2, 4, 10, 20].filter((few) => few < steps).concat(steps))].slice(-4),
  },
  guidance: { text: "Guidance", kind: "number", values: () => [1, 2.5, 4.5, 7] },
  seed: {
    text: "Seed",
    kind: "number",
    values: ({ seed }) => [0, 1, 2, 3].map((more) => String(BigInt(seed) + BigInt(more))),
  },
  solver: {
    text: "Solver",
    kind: "text",
    values: ({ model }, capabilities) => modelOf(capabilities, model).solvers,
  },
  prompt: {
    text: "Prompt",
    kind: "text",
    values: ({ prompt }) => [prompt || "a red cube on snow", "a blue sphere on sand"],
  },
  strength: { text: "Strength", kind: "number", values: () => [0.3, 0.5, 0.7, 0.9] },
});

/**
 * @param {import("./api.js").Api} api
 * @param {{
 *   state: import("./state.js").State<Settings>,
 *   capabilities: Capabilities,
 *   follow: (job: Job) => void,
 *   onChoose: (job: Job) => void,
 *   onFault: (error: Error) => void,
 * }} options
 */
export function createGrid(api, { state, capabilities, follow, onChoose, onFault }) {
  const most = capabilities.limits.cells;
  const across = axis("x", "Across", "steps");
  const down = axis("y", "Down", "guidance");
  const sheet = make("div", {
    class: "sheet",
    tabindex: 0,
    role: "region",
    "aria-label": "Grid of pictures",
    hidden: true,
  });
  const hint = make("p", { class: "hint wide" });
  /** @type {Map<string, HTMLElement>} */
  const cells = new Map();

  /** @param {string} id @param {string} text @param {string} chosen */
  function axis(id, text, chosen) {
    const values = make("input", { type: "text", id: `${id}-values`, autocomplete: "off", oninput: count });
    const field = make(
      "select",
      { id: `${id}-field`, onchange: fill },
      ...(id === "y" ? [make("option", { value: "" }, "nothing")] : []),
      ...Object.entries(FIELDS).map(([name, { text: shown }]) =>
        make("option", { value: name, selected: name === chosen }, shown),
      ),
    );
    function fill() {
      const given = FIELDS[field.value]?.values(state.get(), capabilities) ?? [];
      values.value = given.join(FIELDS[field.value]?.kind === "text" ? " | " : ", ");
      values.disabled = field.value === "";
      count();
    }
    return {
      fill,
      elements: [
        make("label", { class: "field" }, make("span", { class: "label" }, text), field),
        make("label", { class: "field" }, make("span", { class: "label" }, "Values"), values),
      ],
      /** @returns {{field: string, values: (string|number)[]}|null} */
      read() {
        const kind = FIELDS[field.value]?.kind;
        if (!kind) return null;
        const parts = values.value
          .split(kind === "text" ? "|" : ",")
          .map((/** @type {string} */ part) => part.trim())
          .filter(Boolean);
        return { field: field.value, values: kind === "number" ? parts.map(Number) : parts };
      },
    };
  }

  function count() {
    const [x, y] = [across.read(), down.read()];
    const cellsAsked = (x?.values.length ?? 0) * (y ? y.values.length : 1);
    const form = "Texts are separated by | and numbers by commas.";
    hint.textContent = `${counted(cellsAsked, "picture")}, at most ${most}. ${form}`;
  }

  async function draw() {
    const [x, y] = [across.read(), down.read()];
    if (!x) return;
    const { model, inputs, request } = orderOf({ ...state.get(), count: 1 });
    try {
      const rows = await api.createGrid({
        model,
        ...(inputs ? { inputs } : {}),
        request,
        x,
        ...(y ? { y } : {}),
      });
      show(x, y, rows);
      rows.flat().forEach((job) => follow(job));
    } catch (error) {
      onFault(/** @type {Error} */ (error));
    }
  }

  /** @param {{field: string, values: any[]}} x @param {{field: string, values: any[]}|null} y @param {Job[][]} rows */
  function show(x, y, rows) {
    cells.clear();
    const head = make(
      "tr",
      {},
      ...(y ? [make("td")] : []),
      ...x.values.map((value) => make("th", { scope: "col" }, named(x, value))),
    );
    const body = rows.map((row, at) =>
      make(
        "tr",
        {},
        ...(y ? [make("th", { scope: "row" }, named(y, y.values[at]))] : []),
        ...row.map((job) => make("td", {}, cell(job))),
      ),
    );
    sheet.replaceChildren(make("table", {}, make("thead", {}, head), make("tbody", {}, ...body)));
    sheet.hidden = false;
  }

  /** @param {{field: string}} axisOf @param {any} value */
  const named = (axisOf, value) => `${FIELDS[axisOf.field].text} ${value}`;

  /** @param {Job} job */
  function cell(job) {
    const place = make("button", { type: "button", class: "cell", "aria-label": "waiting" }, "waiting");
    cells.set(job.id, place);
    return place;
  }

  find("panel-grid").replaceChildren(
    make(
      "div",
      { class: "axes" },
      ...across.elements,
      ...down.elements,
      hint,
      button({ text: "Draw the grid", className: "primary", onclick: draw }),
    ),
    sheet,
  );
  across.fill();
  down.fill();

  return {
    /** Begin with values that fit the settings of now. */
    refresh() {
      if (!sheet.hidden) return; // a grid is shown, and its axes belong to it
      across.fill();
      down.fill();
    },
    /** @param {JobEvent} event of any job */
    update(event) {
      const place = cells.get(event.job.id);
      if (!place) return;
      const { job } = event;
      const url = job.pictures[0] ? `${job.pictures[0].url}?width=320` : event.preview;
      if (url) place.replaceChildren(make("img", { src: url, alt: job.request.prompt }));
      else if (!place.querySelector("img")) place.textContent = progressText(job);
      place.setAttribute(
        "aria-label",
        job.state === "done" ? `Open: ${job.request.prompt}, seed ${job.request.seed}` : progressText(job),
      );
      if (job.state === "done") place.onclick = () => onChoose(job);
    },
  };
}
