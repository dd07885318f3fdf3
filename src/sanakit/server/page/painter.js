// A brush: white strokes on black, for masks and for scribbles.

import { button, make } from "./dom.js";

/** A mask is white for the server; here it has a colour that white pictures don't swallow. */
const MASK = "#5a6cff";

/**
 * @typedef {object} Painting
 * @property {number} width    pixels
 * @property {number} height
 * @property {string|null} before    what was painted last time, a data: URL
 * @property {boolean} seeThrough    whether the picture below shows through what is black
 * @property {number} brush    its first diameter in pixels
 * @property {(picture: string|null) => void} onPaint    after each stroke; null if nothing is painted
 * @property {() => void} onClose
 */

/** @param {import("./overlay.js").Overlay} overlay @param {Painting} painting */
export function openPainter(overlay, painting) {
  const canvas = make("canvas", {
    width: painting.width,
    height: painting.height,
    class: painting.seeThrough ? "mask" : "scribble",
  });
  const ink = canvas.getContext("2d", { willReadFrequently: true });
  /** Strokes so far, for undo. @type {ImageData[]} */
  const history = [];
  const colour = painting.seeThrough ? MASK : "#fff";
  let erasing = false;
  let size = painting.brush;
  let last = /** @type {[number, number]|null} */ (null);

  /** @param {PointerEvent} event */
  function stroke(event) {
    const [x, y] = overlay.at(event);
    const here = /** @type {[number, number]} */ ([x * canvas.width, y * canvas.height]);
    ink.globalCompositeOperation = erasing ? "destination-out" : "source-over";
    ink.strokeStyle = colour;
    ink.lineWidth = size;
    ink.lineCap = ink.lineJoin = "round";
    ink.beginPath();
    ink.moveTo(...(last ?? here));
    ink.lineTo(...here);
    ink.stroke();
    last = here;
  }

  canvas.addEventListener("pointerdown", (/** @type {PointerEvent} */ event) => {
    history.push(ink.getImageData(0, 0, canvas.width, canvas.height));
    if (history.length > 30) history.shift(); // 30 strokes of a megapixel are 120 MB
    canvas.setPointerCapture(event.pointerId);
    stroke(event);
  });
  canvas.addEventListener("pointermove", (/** @type {PointerEvent} */ event) => last && stroke(event));
  for (const end of ["pointerup", "pointercancel"]) {
    canvas.addEventListener(end, () => {
      if (!last) return;
      last = null;
      tell();
    });
  }

  function tell() {
    painting.onPaint(onBlack(canvas));
  }

  function clear() {
    history.push(ink.getImageData(0, 0, canvas.width, canvas.height));
    ink.clearRect(0, 0, canvas.width, canvas.height);
    tell();
  }

  function undo() {
    const before = history.pop();
    if (!before) return;
    ink.putImageData(before, 0, 0);
    tell();
  }

  if (painting.before) putBack(ink, painting.before, colour);
  overlay.open(
    { width: painting.width, height: painting.height, layers: [canvas], tools: tools() },
    painting.onClose,
  );

  function tools() {
    const brush = button({ icon: "brush", text: "Brush", onclick: () => take(false) });
    const eraser = button({ icon: "eraser", text: "Eraser", onclick: () => take(true) });
    /** @param {boolean} erase */
    function take(erase) {
      erasing = erase;
      brush.setAttribute("aria-pressed", String(!erase));
      eraser.setAttribute("aria-pressed", String(erase));
    }
    take(false);
    const diameter = make("input", {
      type: "range",
      min: 2,
      max: Math.round(Math.min(canvas.width, canvas.height) / 2),
      value: size,
      oninput: () => (size = Number(diameter.value)),
    });
    return [
      brush,
      eraser,
      make("label", { class: "brush" }, "Size", diameter),
      button({ icon: "undo", text: "Undo", onclick: undo }),
      button({ text: "Clear", onclick: clear }),
      button({ text: "Done", className: "primary", onclick: overlay.close }),
    ];
  }
}

/** @param {HTMLCanvasElement} canvas @returns {string|null} its strokes in white on black, null if there are none */
function onBlack(canvas) {
  const ink = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  const { data } = ink.getImageData(0, 0, canvas.width, canvas.height);
  if (!data.some((value, at) => at % 4 === 3 && value)) return null;
  const sheet = make("canvas", { width: canvas.width, height: canvas.height });
  const white = sheet.getContext("2d");
  white.drawImage(canvas, 0, 0);
  white.globalCompositeOperation = "source-in";
  white.fillStyle = "#fff";
  white.fillRect(0, 0, sheet.width, sheet.height);
  white.globalCompositeOperation = "destination-over";
  white.fillStyle = "#000";
  white.fillRect(0, 0, sheet.width, sheet.height);
  return sheet.toDataURL("image/png");
}

/**
 * Strokes of last time: black becomes transparent again, white the brush's colour.
 * @param {CanvasRenderingContext2D} ink
 * @param {string} url
 * @param {string} colour
 */
async function putBack(ink, url, colour) {
  const image = new Image();
  image.src = url;
  await image.decode();
  const { width, height } = ink.canvas;
  ink.drawImage(image, 0, 0, width, height);
  const picture = ink.getImageData(0, 0, width, height);
  for (let at = 0; at < picture.data.length; at += 4) {
    picture.data[at + 3] = picture.data[at];
  }
  ink.putImageData(picture, 0, 0);
  ink.globalCompositeOperation = "source-in";
  ink.fillStyle = colour;
  ink.fillRect(0, 0, width, height);
}
