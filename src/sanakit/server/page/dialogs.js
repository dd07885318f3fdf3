// Dialogs: keyboard help, and the question for an API key.

import { find } from "./dom.js";

export function startHelp() {
  find("help").addEventListener("click", () => find("help-dialog").showModal());
}

/**
 * Ask for an API key; questions that come while the dialog is open share its answer.
 * @returns {(refused: boolean) => Promise<string|null>} refused: whether a key was given that the server didn't take
 */
export function createKeyQuestion() {
  /** @type {Promise<string|null>|null} */
  let open = null;
  return (refused) => {
    open ??= ask(refused).finally(() => (open = null));
    return open;
  };
}

/** @param {boolean} refused @returns {Promise<string|null>} */
function ask(refused) {
  const dialog = find("key-dialog");
  const field = find("key");
  field.value = "";
  if (refused)
    find("key-hint").textContent =
      "The server doesn't know that key. Paste another one; it stays in this tab.";
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener(
      "close",
      () => resolve(dialog.returnValue === "use" ? field.value.trim() || null : null),
      { once: true },
    );
  });
}
