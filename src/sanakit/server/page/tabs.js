// The views above the picture, as the ARIA Authoring Practices describe tabs: arrows move, and moving chooses.

/**
 * @param {HTMLElement} list with role tablist
 * @returns {{choose: (id: string) => void}} id: of a tab
 */
export function startTabs(list) {
  const tabs = /** @type {HTMLElement[]} */ ([...list.querySelectorAll("[role=tab]")]);

  /** @param {string} id */
  function choose(id) {
    for (const tab of tabs) {
      const chosen = tab.id === id;
      tab.setAttribute("aria-selected", String(chosen));
      tab.tabIndex = chosen ? 0 : -1;
      const panel = document.getElementById(tab.getAttribute("aria-controls") ?? "");
      if (panel) panel.hidden = !chosen;
    }
  }

  for (const tab of tabs) tab.addEventListener("click", () => choose(tab.id));
  list.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const at = tabs.findIndex((tab) => tab === document.activeElement);
    const next = tabs[(at + step + tabs.length) % tabs.length];
    choose(next.id);
    next.focus();
  });
  return { choose };
}
