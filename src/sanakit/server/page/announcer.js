// What screen readers are told while eyes see a picture change.

import { find } from "./dom.js";

/** @param {string} text a sentence */
export function announce(text) {
  find("announcer").textContent = text;
}
