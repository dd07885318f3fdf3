// The page: its parts, and what each of them tells the others.

import { announce } from "./announcer.js";
import { ApiError, createApi } from "./api.js";
import { createCompare } from "./compare.js";
import { findMistake, startComposer } from "./composer.js";
import { startControl } from "./control.js";
import { createKeyQuestion, startHelp } from "./dialogs.js";
import { find } from "./dom.js";
import { startDrop } from "./drop.js";
import { startEdit } from "./edit.js";
import { showExamples } from "./examples.js";
import { clearFault, showFault } from "./fault.js";
import { download, fetchBlob, fileName } from "./files.js";
import { counted } from "./format.js";
import { createGallery, showRetention } from "./gallery.js";
import { givenTo } from "./given.js";
import { createGrid } from "./grid.js";
import { followJobs, isFinished } from "./jobs.js";
import { createLive } from "./live.js";
import { startLoras } from "./loras.js";
import { createOverlay } from "./overlay.js";
import { startRegions } from "./regions.js";
import { startSceneBuilder } from "./scene_builder.js";
import { keepSettings, loadSettings, modelOf, orderOf, rollSeed, settingsOf } from "./settings.js";
import { isMac, startShortcuts } from "./shortcuts.js";
import { createStage } from "./stage.js";
import { createState } from "./state.js";
import { startTabs } from "./tabs.js";
import { startTheme } from "./theme.js";

/** @typedef {import("./types.js").Job} Job */
/** @typedef {import("./types.js").JobEvent} JobEvent */
/** @typedef {import("./types.js").Picture} Picture */
/** @typedef {import("./types.js").Settings} Settings */
/** @typedef {import("./types.js").Capabilities} Capabilities */

async function start() {
  startTheme();
  startHelp();
  const api = createApi({ askForKey: createKeyQuestion() });
  const capabilities = await api.capabilities();
  await api.keepSession();
  startPage(api, capabilities);
}

/** @param {import("./api.js").Api} api @param {Capabilities} capabilities */
function startPage(api, capabilities) {
  const state = /** @type {import("./state.js").State<Settings>} */ (createState(loadSettings(capabilities)));
  const tabs = startTabs(/** @type {HTMLElement} */ (document.querySelector("[role=tablist]")));
  const overlay = createOverlay();
  const compare = createCompare();
  /** The job in the stage; events of others only reach gallery and grid. @type {string|null} */
  let focused = null;

  const stage = createStage([
    { icon: "again", text: "Recreate", run: (job, picture) => recreate(job, picture.seed, true) },
    { icon: "dice", text: "Vary seed", run: (job) => recreate(job, rollSeed(), false) },
    {
      icon: "edit",
      text: "Edit",
      fits: (job) => modelOf(capabilities, job.model).edit,
      run: (job, picture) => change(job, picture),
    },
    {
      icon: "compare",
      text: "Compare",
      run: (job, picture) => {
        compare.begin(job, picture);
        tabs.choose("tab-compare");
      },
    },
    {
      icon: "download",
      text: "Download",
      run: (job, picture) => download(picture.url, fileName(job.request.prompt, picture.seed)),
    },
    { icon: "trash", text: "Delete", run: (job) => remove(job) },
  ]);
  const gallery = createGallery(api, { onChoose: choose, onFault: showFault });
  const jobs = followJobs(api, { onEvent: hear, onReach: (reached) => showServer(reached) });
  const grid = createGrid(api, {
    state,
    capabilities,
    follow: jobs.follow,
    onFault: showFault,
    onChoose: (job) => {
      tabs.choose("tab-picture");
      choose(job, job.pictures[0]);
    },
  });
  const live = createLive(api, {
    order: (token) => orderOf(state.get(), { token, model: modelOf(capabilities, state.get().model) }),
    onEvent: hearLive,
    onFault: showFault,
  });

  /** Draw with the settings of now. */
  async function draw() {
    clearFault();
    const mistake = findMistake();
    if (mistake) return showFault(mistake);
    if (!state.get().locked) state.set({ seed: rollSeed() });
    await order(() => api.createJob(orderOf(state.get())));
  }

  /**
   * Draw a job again. The server has what it was given; the form shows it, to go on from there.
   * @param {Job} job
   * @param {string} seed
   * @param {boolean} locked whether the next picture keeps the seed
   */
  async function recreate(job, seed, locked) {
    clearFault();
    const given = await givenTo(api, job, capabilities).catch(() => ({})); // what is gone, the server tells
    const { settings } = settingsOf(job.request, job.model, capabilities);
    state.set({ ...settings, ...given, seed, locked, count: 1 });
    if (state.get().edit) find("edit-group").open = true;
    await order(() => api.recreate(job.id, { seed, count: 1 }));
  }

  /** @param {() => Promise<Job>} ask for a job */
  async function order(ask) {
    overlay.close();
    live.stop(); // after the form has changed, which would draw while typing
    try {
      const job = await ask();
      focus(job);
      announce("Drawing.");
      jobs.follow(job, true);
    } catch (error) {
      showFault(/** @type {Error} */ (error));
    }
  }

  /** @param {Job} job */
  function focus(job) {
    focused = job.id;
    tabs.choose("tab-picture");
    stage.begin(job);
  }

  /** @param {JobEvent} event of an ordered job */
  function hear(event) {
    grid.update(event);
    // The last event also brings pictures that were finished while the connection was gone.
    if (event.picture || isFinished(event.job)) gallery.add(event.job);
    if (event.job.id === focused) {
      stage.update(event);
      const shown = stage.picture();
      if (shown) gallery.mark(shown.id);
    }
    showServer(true);
  }

  /** @param {JobEvent} event of a live job */
  function hearLive(event) {
    if (event.kind === "cancelled") return; // a newer one comes
    clearFault();
    focused = event.job.id;
    stage.update(event);
  }

  /** @param {Job} job @param {Picture} picture */
  function choose(job, picture) {
    gallery.mark(picture.id);
    if (compare.waits()) return compare.add(job, picture);
    focused = job.id;
    overlay.close();
    tabs.choose("tab-picture");
    stage.choose(job, picture);
    announce(`Shown: ${job.request.prompt}`);
  }

  function cancel() {
    const job = stage.job();
    if (!job || isFinished(job)) return overlay.close();
    live.stop();
    api.cancel(job.id).catch(showFault);
  }

  /**
   * Take over the settings of a picture.
   * @param {{request: Record<string, any>, model: string|null}} record
   * @returns {boolean} whether they are all that it takes to draw the same again
   */
  function load({ request, model }) {
    const { settings, missing } = settingsOf(request, model, capabilities);
    state.set(settings);
    if (missing.length)
      showFault(new Error(`This picture was made with ${missing.join(", ")}: give it again, then draw.`));
    return missing.length === 0;
  }

  /** @param {Job} job @param {Picture} picture */
  async function change(job, picture) {
    const name = fileName(job.request.prompt, picture.seed);
    load(job);
    clearFault(); // the picture itself is the source now
    await edit.begin(await fetchBlob(picture.url), name);
    document.getElementById("strength")?.focus();
  }

  /** @param {Job} job */
  async function remove(job) {
    if (!window.confirm("Delete this job's pictures for good?")) return;
    try {
      await api.remove(job.id);
      gallery.remove(job.id);
      stage.clear();
      announce("Deleted.");
    } catch (error) {
      showFault(/** @type {Error} */ (error));
    }
  }

  /** Load the settings of a picture; one that has none becomes the picture to change. @param {File} file */
  async function takeFile(file) {
    clearFault();
    try {
      const found = await api.read(file);
      if (load(found)) announce(["Settings loaded.", ...found.notes].join(" "));
    } catch (error) {
      const hasNone = error instanceof ApiError && error.status === 422;
      if (!hasNone || find("edit-group").hidden) return showFault(/** @type {Error} */ (error));
      await edit.begin(file, file.name);
      announce("The picture holds no settings: it is the one to change now.");
    }
  }

  /** @param {boolean} reached */
  function showServer(reached) {
    const waiting = jobs.unfinished().length;
    const place = find("server-state");
    place.dataset.state = !reached ? "away" : waiting ? "busy" : "ready";
    place.textContent = !reached
      ? "Server not reachable"
      : waiting
        ? `Drawing ${counted(waiting, "job")}`
        : "Ready";
  }

  startComposer(state, capabilities);
  showRetention(capabilities.limits);
  const edit = startEdit(state, { overlay, stage, onFault: showFault });
  startRegions(state, overlay);
  startLoras(state, capabilities.loras);
  startControl(state, { capabilities, overlay, stage });
  startDrop(takeFile);
  startShortcuts({
    draw,
    cancel,
    dice: () => state.set({ seed: rollSeed() }),
    search: () => find("search").focus(),
  });
  if (capabilities.toybox) {
    find("scene-group").hidden = false;
    startSceneBuilder(find("scene"), capabilities.toybox, (prompt) => state.set({ prompt }));
  }
  find("edit-group").hidden = !capabilities.models.some((model) => model.edit);
  find("draw-key").textContent = isMac() ? "⌘ ↵" : "Ctrl ↵";
  find("composer").addEventListener("submit", (/** @type {SubmitEvent} */ event) => {
    event.preventDefault();
    draw();
  });
  find("cancel").addEventListener("click", cancel);
  find("tab-grid").addEventListener("click", grid.refresh);
  state.watch((settings, changed) => {
    keepSettings(settings);
    if (settings.live && settings.prompt.trim()) live.touch();
    else if (changed.has("live")) live.stop();
  });
  showExamples(capabilities.toybox !== null, (prompt) => {
    state.set({ prompt });
    draw();
  });
  window.addEventListener("pagehide", live.stop);
  showServer(true);
  takeUp();

  /** What was begun before the page was opened. */
  async function takeUp() {
    await gallery.load();
    const unfinished = await Promise.all(
      ["running", "queued"].map((name) => api.jobs({ state: name, limit: 50 })),
    );
    const mine = unfinished.flat().filter((job) => !job.live);
    mine.forEach((job, at) => jobs.follow(job, at === 0));
    if (mine[0]) focus(mine[0]);
  }
}

start().catch((error) => {
  find("server-state").dataset.state = "away";
  find("server-state").textContent = "Not connected";
  showFault(error);
});
