"""Screenshots for the documentation: `python -m tests.browser.screenshots` writes docs/images/page*.webp."""

from __future__ import annotations

import io
import re
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from PIL import Image
from playwright.sync_api import expect, sync_playwright

from tests.browser.serving import FLAGS, browser_path, serve

IMAGES = Path(__file__).parents[2] / "docs/images"
WIDE = {"width": 1360, "height": 880}
PHONE = {"width": 390, "height": 844}
QUALITY = 82
PICTURES = (
    ("three green cones on sand at noon", "1"),
    ("a striped pink cylinder on wood at night", "4"),
    ("a large yellow pyramid on snow at sunset", "2"),
    ("two orange cubes on tiles under an overcast sky", "0"),
    ("a cyan metal sphere on water at sunset", "3"),
    ("a purple cone right of a white cube on grass at noon", "5"),
    ("a large red metal sphere left of a small blue rubber cube on grass at sunset", "8"),
)


def write(page: Any, name: str) -> None:
    """Write what the page shows as WebP."""
    page.mouse.move(5, 500)  # nothing is hovered
    page.wait_for_timeout(400)  # transitions end
    with Image.open(io.BytesIO(page.screenshot())) as image:
        image.convert("RGB").save(IMAGES / f"{name}.webp", quality=QUALITY, method=6)
    print(f"{name}.webp  {(IMAGES / f'{name}.webp').stat().st_size / 1e3:.0f} KB")


def draw(page: Any, prompt: str, seed: str) -> None:
    """Draw a picture and wait for it."""
    page.fill("#seed", seed)
    page.fill("#prompt", prompt)
    page.click("#draw")
    expect(page.locator("#caption-recipe")).to_have_text(re.compile(rf"seed {seed}\b"))
    expect(page.locator("#caption-prompt")).to_have_text(prompt)
    expect(page.locator("#actions:not([inert])")).to_be_visible()


def main() -> None:
    """Draw some pictures, and show the page around them."""
    expect.set_options(timeout=120_000)
    with TemporaryDirectory() as folder, serve(Path(folder)) as (address, _), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path(), args=FLAGS)
        page = browser.new_context(viewport=WIDE).new_page()
        page.set_default_timeout(120_000)
        page.goto(address)
        for prompt, seed in PICTURES:
            draw(page, prompt, seed)
        page.locator("h1").click()  # no field has the focus
        write(page, "page")
        show_scene(page)
        show_grid(page)
        show_edit(page)
        phone = browser.new_context(viewport=PHONE, has_touch=True, is_mobile=True).new_page()
        phone.goto(address)
        show_phone(phone)
        browser.close()


def show_scene(page: Any) -> None:
    """The scene builder, in dark, while a picture comes."""
    page.emulate_media(color_scheme="dark")
    page.fill("#seed", "0")
    page.click("#settings-group > summary")
    page.click("#scene-group > summary")
    page.get_by_role("button", name="Write the prompt").click()
    page.locator("#composer").evaluate("(form) => form.scrollTo(0, 0)")
    page.keyboard.press("Control+Enter")
    expect(page.locator("#progress-text")).to_have_text(re.compile(r"Step 1\d of 20"))
    write(page, "page-scene")
    expect(page.locator("#actions:not([inert])")).to_be_visible()
    page.click("#scene-group > summary")
    page.click("#settings-group > summary")
    page.emulate_media(color_scheme="light")


def show_grid(page: Any) -> None:
    """A grid of steps and guidance."""
    page.get_by_role("tab", name="X/Y grid").click()
    page.fill("#x-values", "2, 4, 8, 20")
    page.fill("#y-values", "1, 2.5, 4.5")
    page.get_by_role("button", name="Draw the grid").click()
    expect(page.get_by_role("button", name=re.compile("^Open: "))).to_have_count(12)
    write(page, "page-grid")


def show_edit(page: Any) -> None:
    """A mask over a picture."""
    page.get_by_role("tab", name="Picture").click()
    page.locator(f"#shelf button[title='{PICTURES[2][0]}']").click()
    page.locator("#actions").get_by_role("button", name="Edit").click()
    page.get_by_role("button", name="Paint a mask").click()
    box = page.locator("#overlay").bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.38, box["y"] + box["height"] * 0.62)
    page.mouse.down()
    for across, down in ((0.5, 0.7), (0.64, 0.6), (0.52, 0.56)):
        page.mouse.move(box["x"] + box["width"] * across, box["y"] + box["height"] * down, steps=6)
    page.mouse.up()
    write(page, "page-edit")


def show_phone(page: Any) -> None:
    """The same on a phone."""
    page.locator(f"#shelf button[title='{PICTURES[-2][0]}']").first.tap()
    page.evaluate("() => window.scrollTo(0, 0)")
    write(page, "page-phone")


if __name__ == "__main__":
    main()
