// Files dropped anywhere on the page.

import { find } from "./dom.js";

/** @param {(file: File) => void} onDrop */
export function startDrop(onDrop) {
  const sign = find("dropping");
  let depth = 0; // each element under the pointer enters and leaves for itself

  /** @param {DragEvent} event */
  const holdsFile = (event) => event.dataTransfer?.types.includes("Files") ?? false;

  window.addEventListener("dragenter", (event) => {
    if (!holdsFile(event)) return;
    depth += 1;
    sign.hidden = false;
  });
  window.addEventListener("dragleave", (event) => {
    if (holdsFile(event)) depth -= 1;
    if (depth <= 0) sign.hidden = true;
  });
  window.addEventListener("dragover", (event) => {
    if (holdsFile(event)) event.preventDefault();
  });
  window.addEventListener("drop", (event) => {
    if (!holdsFile(event)) return;
    event.preventDefault(); // else the browser leaves the page to show the file
    depth = 0;
    sign.hidden = true;
    const file = event.dataTransfer?.files[0];
    if (file) onDrop(file);
  });
}
