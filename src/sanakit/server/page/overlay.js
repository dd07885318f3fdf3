// What lies over the picture to be painted on: exactly where the picture is, whatever the window's size.

import { find } from "./dom.js";

/**
 * @typedef {object} Sheet    something that is painted on
 * @property {number} width    of the picture below, in pixels
 * @property {number} height
 * @property {HTMLElement[]} layers    fill the overlay
 * @property {HTMLElement[]} tools    stand below the frame
 */

export function createOverlay() {
  const overlay = find("overlay");
  const frame = find("frame");
  const tools = find("tools");
  /** @type {Sheet|null} */
  let sheet = null;
  let onclose = () => {};

  function place() {
    if (!sheet) return;
    const scale = Math.min(frame.clientWidth / sheet.width, frame.clientHeight / sheet.height);
    const [width, height] = [sheet.width * scale, sheet.height * scale];
    Object.assign(overlay.style, {
      width: `${width}px`,
      height: `${height}px`,
      left: `${(frame.clientWidth - width) / 2}px`,
      top: `${(frame.clientHeight - height) / 2}px`,
    });
  }

  new ResizeObserver(place).observe(frame);

  function close() {
    if (!sheet) return;
    sheet = null;
    overlay.hidden = tools.hidden = true;
    overlay.replaceChildren();
    tools.replaceChildren();
    onclose();
  }

  return {
    /** @param {Sheet} next @param {() => void} [closed] called once the sheet is taken away */
    open(next, closed = () => {}) {
      close();
      sheet = next;
      onclose = closed;
      overlay.replaceChildren(...next.layers);
      tools.replaceChildren(...next.tools);
      overlay.hidden = tools.hidden = false;
      place();
      frame.scrollIntoView({ block: "nearest" });
    },
    close,
    /** @param {PointerEvent} event @returns {[number, number]} where it is, in fractions of the picture */
    at(event) {
      const box = overlay.getBoundingClientRect();
      return [
        limited((event.clientX - box.left) / box.width),
        limited((event.clientY - box.top) / box.height),
      ];
    },
  };
}

/** @typedef {ReturnType<typeof createOverlay>} Overlay */

/** @param {number} share */
const limited = (share) => Math.min(Math.max(share, 0), 1);
