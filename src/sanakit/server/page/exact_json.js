// JSON whose seeds keep all their digits.
//
// A seed goes up to 2^63 - 1, and a JavaScript number holds 2^53 exactly: read as numbers, large seeds would draw other
// pictures. On this page every seed is a string of digits; in JSON it is a number. Inside of a JSON string quotes have
// backslashes before them, so these patterns meet keys alone.

const LONG_SEED = /"seed":\s*(\d{16,})/g;
const WRITTEN_SEED = /"seed":"(\d{1,19})"/g;

/** @param {string} text */
export function readJson(text) {
  const safe = text.replace(LONG_SEED, '"seed":"$1"');
  return JSON.parse(safe, (name, value) =>
    name === "seed" && typeof value === "number" ? String(value) : value,
  );
}

/** @param {unknown} value */
export function writeJson(value) {
  return JSON.stringify(value).replace(WRITTEN_SEED, '"seed":$1');
}
