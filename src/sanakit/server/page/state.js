// A value that others watch: the settings of the form.

/**
 * @template {object} T
 * @param {T} initial
 */
export function createState(initial) {
  let value = Object.freeze({ ...initial });
  /** @type {Set<(value: Readonly<T>, changed: Set<string>) => void>} */
  const watchers = new Set();
  return {
    /** @returns {Readonly<T>} */
    get: () => value,
    /**
     * Change some fields; watchers hear of those that are another value now.
     * @param {Partial<T>} patch
     */
    set(patch) {
      const before = /** @type {Record<string, any>} */ (value);
      const changed = new Set(
        Object.keys(patch).filter((name) => !Object.is(before[name], patch[/** @type {keyof T} */ (name)])),
      );
      if (!changed.size) return;
      value = Object.freeze({ ...value, ...patch });
      for (const watcher of watchers) watcher(value, changed);
    },
    /** @param {(value: Readonly<T>, changed: Set<string>) => void} watcher */
    watch(watcher) {
      watchers.add(watcher);
    },
  };
}

/**
 * @template {object} T
 * @typedef {ReturnType<typeof createState<T>>} State
 */
