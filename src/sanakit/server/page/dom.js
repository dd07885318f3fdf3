// Elements of the page: found, made, and filled.

/**
 * @param {string} id
 * @returns {any} the element; the type is the caller's, who wrote it into index.html
 */
export function find(id) {
  const element = document.getElementById(id);
  if (!element) throw new Error(`the page has no element ${id}`);
  return element;
}

/**
 * An element with attributes, listeners (`onclick`) and children.
 *
 * Attributes that are `false`, `null` or `undefined` are left out, `true` is an empty attribute. There is no way in for
 * markup: text from servers and users is only ever text.
 * @param {string} tag
 * @param {Record<string, any>} [attributes]
 * @param {...(Node|string|null|undefined|false)} children
 * @returns {any}
 */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined)
      element.setAttribute(name, String(value));
  }
  element.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

const SVG = "http://www.w3.org/2000/svg";

/**
 * A symbol of index.html, hidden from screen readers: its button has a name.
 * @param {string} name
 */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", `#icon-${name}`);
  svg.append(use);
  return svg;
}

/**
 * A button with an icon, and text beside it or a name for screen readers.
 * @param {{
 *   icon?: string,
 *   text?: string,
 *   label?: string,
 *   className?: string,
 *   onclick: (event: MouseEvent) => void,
 * }} parts
 */
export function button(parts) {
  return make(
    "button",
    {
      type: "button",
      class: parts.className ?? "quiet",
      "aria-label": parts.label,
      title: parts.label,
      onclick: parts.onclick,
    },
    parts.icon && icon(parts.icon),
    parts.text && make("span", {}, parts.text),
  );
}

/**
 * Options of a select, as texts or as [value, text]; the chosen one stays if it is still there.
 * @param {HTMLSelectElement} select
 * @param {(string|[string, string])[]} options
 */
export function fillSelect(select, options) {
  const before = select.value;
  const rows = options.map((option) => (Array.isArray(option) ? option : [option, option]));
  select.replaceChildren(...rows.map(([value, text]) => make("option", { value }, text)));
  if (rows.some(([value]) => value === before)) select.value = before;
}
