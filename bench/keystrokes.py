"""From the press of a key to the picture of it, in a browser: drawing while typing.

    python -m bench.keystrokes [--model NAME] [--lite] [--decoder NAME] [--size N] [--steps N ...] [--words N]
                               [--warm N] [--threads N]

NAME is as for `sanakit serve`, or a published size such as `sprint-0.6b-1024`: a folder of that size with random
weights is written to runs/bench first (7 GB), with --lite one whose decoder is the faster one.

Starts `sanakit serve` and Debian's Chromium, types words at the pace of a typist, and times each from its last key down
to the decoded picture of the prompt as it then is: the pause of 150 ms, two requests, the drawing, the PNG. Needs the
extra `browser`.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path
from typing import Any

from bench.cold import folder_of
from tests.browser.serving import FLAGS, browser_path, serve

PROMPT = ("a", "small", "red", "metal", "sphere", "on", "snow", "at", "noon", "and", "a", "blue", "cube")
KEY_GAP = 70  # milliseconds between two keys, as a practised typist has
WARM = 2  # words whose times do not count: weights are loaded, pages of memory are touched
PATIENCE = 600_000  # milliseconds for a picture

# The time of a key is taken as it reaches the page, that of a picture once it is decoded and may be painted.
WATCH = """() => {
    const image = document.querySelector("#picture");
    window.timing = { key: 0, shown: [] };
    window.addEventListener("keydown", () => (window.timing.key = performance.now()), true);
    new MutationObserver(async () => {
        if (image.hasAttribute("data-preview")) return;
        const text = image.alt;
        await image.decode();
        window.timing.shown.push({ at: performance.now(), text });
    }).observe(image, { attributes: true, attributeFilter: ["src"] });
}"""


DRAWN = """async () => {
    const [job] = (await (await fetch("/api/jobs?limit=1")).json()).jobs;
    return job.finished - job.started;
}"""


def measure(page: Any, words: int, warm: int) -> tuple[list[float], list[float]]:
    """Seconds from the last key of each word to its picture, and those of them in which the server drew."""
    page.evaluate(WATCH)
    typed, times, drawn = "", [], []
    page.fill("#prompt", "")
    for number in range(warm + words):
        word = PROMPT[number % len(PROMPT)]
        text = word if not typed else f" {word}"
        page.locator("#prompt").press_sequentially(text, delay=KEY_GAP)
        typed += text
        page.locator(f'#picture[alt="{typed}"]:not([data-preview])').wait_for()
        page.wait_for_timeout(300)  # the typist looks
        key, shown = page.evaluate("() => [window.timing.key, window.timing.shown]")
        found = [one["at"] for one in shown if one["text"] == typed]
        if number >= warm:
            times.append((found[0] - key) / 1000)
            drawn.append(page.evaluate(DRAWN))
    return times, drawn


def main() -> None:
    """Type, and print the times."""
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="toybox")
    parser.add_argument("--lite", action="store_true")
    parser.add_argument("--decoder", help="as for `sanakit serve`")
    parser.add_argument("--size", type=int)
    parser.add_argument("--steps", type=int, nargs="*")
    parser.add_argument("--guidance", type=float)
    parser.add_argument("--words", type=int, default=20)
    parser.add_argument("--warm", type=int, default=WARM)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    options = ["--model", folder_of(given.model, given.lite), "--threads", str(given.threads)]
    if given.decoder is not None:
        options += ["--decoder", given.decoder]
    with (
        tempfile.TemporaryDirectory() as folder,
        serve(Path(folder), 0, *options) as (address, _),
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(executable_path=browser_path(), args=FLAGS)
        page = browser.new_page()
        page.set_default_timeout(PATIENCE)
        page.goto(address)
        if given.size is not None:
            page.select_option("#size", "custom")
            for side in ("width", "height"):
                page.fill(f"#{side}", str(given.size))
        if given.guidance is not None:
            page.fill("#guidance", str(given.guidance))
        page.get_by_role("switch", name="Draw while typing").check()
        for steps in given.steps or [int(page.input_value("#steps"))]:
            page.fill("#steps", str(steps))
            report(page, given)
        browser.close()


def report(page: Any, given: argparse.Namespace) -> None:
    """Measure with what the form says, and print a line."""
    size, steps, guidance = (page.input_value(f"#{name}") for name in ("width", "steps", "guidance"))
    times, drawn = map(sorted, measure(page, given.words, given.warm))
    middle, late = statistics.median(times), times[int(0.9 * (len(times) - 1))]
    print(
        f"{given.model}{' lite' if given.lite else ''}, {size} px, {steps} steps, guidance {guidance}, {given.threads} "
        f"threads: median {middle:.2f} s (drawing {statistics.median(drawn):.2f} s), 90th percentile {late:.2f} s, "
        f"fastest {times[0]:.2f} s, of {len(times)} words",
        flush=True,
    )


if __name__ == "__main__":
    main()
