// Light, dark, or as the system has it.

import { find } from "./dom.js";

const PLACE = "sanakit-theme";
const THEMES = ["auto", "light", "dark"];
const NAMES = { auto: "as the system's", light: "light", dark: "dark" };

export function startTheme() {
  const button = find("theme");
  const show = (/** @type {string} */ theme) => {
    document.documentElement.dataset.theme = theme;
    button.setAttribute("aria-label", `Colours: ${NAMES[/** @type {keyof NAMES} */ (theme)]}`);
    button.title = button.getAttribute("aria-label");
  };
  const kept = localStorage.getItem(PLACE) ?? "auto";
  show(THEMES.includes(kept) ? kept : "auto");
  button.addEventListener("click", () => {
    const next =
      THEMES[(THEMES.indexOf(document.documentElement.dataset.theme ?? "auto") + 1) % THEMES.length];
    localStorage.setItem(PLACE, next);
    show(next);
  });
}
