// Sizes to choose from: about as many pixels as the model was made for, in the usual shapes.

const STEP = 32; // sides are multiples of it
const SHAPES = /** @type {[string, number][]} */ ([
  ["Square", 1],
  ["Landscape 4:3", 4 / 3],
  ["Landscape 3:2", 3 / 2],
  ["Wide 16:9", 16 / 9],
  ["Portrait 3:4", 3 / 4],
  ["Portrait 2:3", 2 / 3],
  ["Tall 9:16", 9 / 16],
]);

/**
 * @param {{width: number, height: number}} defaults of a model
 * @returns {[string, string][]} `WxH` and the text of the option
 */
export function sizeOptions({ width, height }) {
  const side = Math.sqrt(width * height);
  const seen = new Map();
  for (const [name, ratio] of SHAPES) {
    const [across, down] = [side * Math.sqrt(ratio), side / Math.sqrt(ratio)].map(rounded);
    if (!seen.has(`${across}x${down}`)) seen.set(`${across}x${down}`, `${name} · ${across} × ${down}`);
  }
  return [...seen];
}

/** @param {number} side */
const rounded = (side) => Math.max(STEP, Math.round(side / STEP) * STEP);
