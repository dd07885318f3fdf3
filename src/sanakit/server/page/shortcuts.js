// Keys that work wherever the focus is. No plain letters: those belong to whoever types.

/** @param {{draw: () => void, cancel: () => void, dice: () => void, search: () => void}} actions */
export function startShortcuts({ draw, cancel, dice, search }) {
  window.addEventListener("keydown", (event) => {
    const command = event.ctrlKey || event.metaKey;
    if (document.querySelector("dialog[open]")) return;
    if (command && event.key === "Enter") run(event, draw);
    else if (command && event.key.toLowerCase() === "k") run(event, search);
    else if (event.altKey && event.code === "KeyR")
      run(event, dice); // by its place: Alt changes letters on a Mac
    else if (event.key === "Escape" && !isSearch(event.target)) run(event, cancel);
  });
}

/** @param {KeyboardEvent} event @param {() => void} action */
function run(event, action) {
  event.preventDefault();
  action();
}

/** Whether Escape empties the field. @param {EventTarget|null} target */
const isSearch = (target) =>
  target instanceof HTMLInputElement && target.type === "search" && target.value !== "";

/** Whether the command key is ⌘. */
export const isMac = () => /Mac|iPhone|iPad/.test(navigator.platform);
