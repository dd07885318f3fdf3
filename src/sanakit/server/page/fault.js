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
  marked = error.field ? document.getElementById(error.field) : null;
  marked?.setAttribute("aria-invalid", "true");
}

export function clearFault() {
  find("fault").hidden = true;
  marked?.removeAttribute("aria-invalid");
  marked = null;
}
