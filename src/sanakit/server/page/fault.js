// What went wrong, in the server's words, above the picture and at the field it is about.

import { find } from "./dom.js";

let marked = /** @type {HTMLElement|null} */ (null);

/** @param {Error & {field?: string|null, retryAfter?: number|null}} error */
export function showFault(error) {
  clearFault();
  const place = find("fault");
  const later = error.retryAfter ? ` Try again in ${error.retryAfter} s.` : "";
  place.textContent = `${error.message}${later}`;
  place.hidden = false;
  marked = fieldOf(error.field ?? "");
  marked?.setAttribute("aria-invalid", "true");
}

/**
 * @param {string} path where the server found the fault, such as `request.steps`
 * @returns {HTMLElement|null} its field
 */
function fieldOf(path) {
  const named = path.split(".").map((part) => document.getElementById(part));
  return named.find((element) => element?.matches("input, select, textarea")) ?? null;
}

export function clearFault() {
  find("fault").hidden = true;
  marked?.removeAttribute("aria-invalid");
  marked = null;
}
