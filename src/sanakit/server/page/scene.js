// A Toybox scene as a prompt, in the words that its captions use. Pure: no element is touched.

/** @typedef {import("./types.js").Toybox} Toybox */

/**
 * @typedef {object} Thing
 * @property {number} count
 * @property {string} size        "" if it is not said, and so are the others but the shape
 * @property {string} colour
 * @property {string} material
 * @property {string} shape
 *
 * @typedef {object} Scene
 * @property {Thing[]} things
 * @property {string} relation    of the first thing to the second; "" for none
 * @property {string} floor
 * @property {string} light
 */

const COUNTS = ["", "", "two", "three", "four"];

/** @param {Toybox} toybox @returns {Scene} a scene to begin with */
export function firstScene(toybox) {
  const [shape, other] = Object.keys(toybox.shapes);
  const [colour, , , , , blue] = toybox.colours;
  return {
    things: [
      { count: 1, size: toybox.sizes[0], colour, material: toybox.materials[1] ?? "", shape },
      {
        count: 1,
        size: toybox.sizes[1] ?? "",
        colour: blue ?? colour,
        material: toybox.materials[0],
        shape: other ?? shape,
      },
    ],
    relation: toybox.relations[0],
    floor: Object.keys(toybox.floors)[0],
    light: Object.keys(toybox.lights)[1] ?? "",
  };
}

/** @param {Scene} scene */
export const objectsIn = (scene) => scene.things.reduce((sum, thing) => sum + thing.count, 0);

/** @param {Scene} scene @returns {boolean} whether "left of" and the like can be said: of one thing and another */
export const canRelate = (scene) => scene.things.length === 2 && objectsIn(scene) === 2;

/** @param {Scene} scene @param {Toybox} toybox @returns {string} the prompt */
export function sceneWords(scene, toybox) {
  const named = scene.things.map((thing) => thingWords(thing, toybox));
  const related = canRelate(scene) && scene.relation;
  const things = related ? named.join(` ${scene.relation} `) : listed(named);
  return [things, toybox.floors[scene.floor], toybox.lights[scene.light]].filter(Boolean).join(" ");
}

/** @param {Thing} thing @param {Toybox} toybox */
function thingWords(thing, toybox) {
  const shape = thing.count > 1 ? toybox.shapes[thing.shape] : thing.shape;
  const words = [thing.size, thing.colour, thing.material, shape].filter(Boolean);
  const article = /^[aeiou]/.test(words[0]) ? "an" : "a";
  return [thing.count > 1 ? COUNTS[thing.count] : article, ...words].join(" ");
}

/** @param {string[]} named */
function listed(named) {
  return named.length < 2
    ? named.join("")
    : `${named.slice(0, -1).join(", ")} and ${named[named.length - 1]}`;
}
