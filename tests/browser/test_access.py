"""The page for everybody: on a phone, by keyboard, by screen reader, in light and dark."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from PIL import Image

sync_api = pytest.importorskip("playwright.sync_api", reason="the page's tests need playwright: make browser")
expect = sync_api.expect

PHONE = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}
CONTROLS = {
    "button", "textbox", "searchbox", "slider", "spinbutton", "combobox", "checkbox", "switch", "radio", "tab", "link",
    "dialog", "img", "image", "progressbar", "region", "form", "disclosureTriangle",
}  # fmt: skip
PAIRS = [
    ("--text", "--ground", 4.5), ("--text", "--surface", 4.5), ("--muted", "--ground", 4.5),
    ("--muted", "--surface", 4.5), ("--accent", "--surface", 4.5), ("--accent", "--accent-soft", 4.5),
    ("--on-accent", "--accent", 4.5), ("--fault", "--fault-soft", 4.5), ("--edge", "--surface", 3.0),
    ("--edge", "--ground", 3.0),
]  # fmt: skip
"""Colours on colours, and the least contrast of WCAG 2.2 (1.4.3, 1.4.11)."""


def open_everything(page, folder: Path) -> None:
    """Every group of settings with something in it."""
    Image.new("RGB", (64, 64)).save(folder / "x.png")
    page.locator("#edit input[type=file]").set_input_files(folder / "x.png")
    expect(page.get_by_role("slider", name="Strength")).to_be_visible()
    page.evaluate("() => document.querySelectorAll('details').forEach((group) => (group.open = true))")
    page.get_by_role("button", name="Add a box").click()


def test_a_phone_shows_prompt_picture_and_gallery_without_scrolling_sideways(visit, tmp_path: Path):
    page = visit(**PHONE)
    page.locator(".examples button").nth(1).tap()
    expect(page.locator("#actions:not([inert])")).to_be_visible()
    page.fill("#steps", "3")
    open_everything(page, tmp_path)
    width = page.evaluate("() => document.documentElement.scrollWidth")
    assert width <= PHONE["viewport"]["width"]
    prompt, picture, settings, gallery = (
        page.locator(one).bounding_box()["y"] for one in ("#prompt", "#frame", ".groups", "#gallery-title")
    )
    assert prompt < picture < settings < gallery
    for small in page.locator("button:visible, select:visible").all():
        assert small.bounding_box()["height"] >= 24, "WCAG 2.2, 2.5.8"


@pytest.mark.parametrize("tab", ["tab-picture", "tab-grid", "tab-compare"])
def test_every_control_has_a_name(visit, tmp_path: Path, tab: str):
    page = visit()
    open_everything(page, tmp_path)
    page.click(f"#{tab}")
    session = page.context.new_cdp_session(page)
    nodes = session.send("Accessibility.getFullAXTree")["nodes"]
    seen = [node for node in nodes if not node["ignored"] and node["role"]["value"] in CONTROLS]
    nameless = [node for node in seen if not node.get("name", {}).get("value", "").strip()]
    assert len(seen) > 40
    assert [node["role"]["value"] for node in nameless] == []


def test_everything_can_be_reached_by_the_tab_key_and_shows_its_focus(visit):
    page = visit()
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the picture")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#stage")).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.get_by_role("tab", name="Picture")).to_be_focused()
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("tab", name="X/Y grid")).to_be_focused()
    expect(page.locator("#panel-grid")).to_be_visible()
    focus = page.get_by_role("tab", name="X/Y grid").evaluate("(tab) => getComputedStyle(tab).outlineWidth")
    assert focus == "2px"


def test_keys_work_wherever_the_focus_is(visit):
    page = visit()
    seed = page.input_value("#seed")
    page.focus("#prompt")
    page.keyboard.press("Alt+r")
    expect(page.locator("#seed")).not_to_have_value(seed)
    page.click("#help")
    expect(page.get_by_role("dialog", name="Keyboard")).to_be_visible()
    page.keyboard.press("Control+Enter")  # not through a dialog
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog", name="Keyboard")).to_be_hidden()
    expect(page.locator("#progress")).to_be_hidden()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_are_told_apart(visit, scheme: str):
    page = visit(color_scheme=scheme)
    for ink, paper, least in PAIRS:
        found = contrast(colour(page, ink), colour(page, paper))
        assert found >= least, f"{ink} on {paper} in {scheme}: {found:.2f}"


def test_the_theme_can_be_chosen_and_is_kept(visit):
    page = visit(color_scheme="light")
    light = colour(page, "--ground")
    for _ in range(2):
        page.get_by_role("button", name=re.compile("^Colours")).click()
    dark = colour(page, "--ground")
    assert sum(dark) < sum(light)
    page.reload()
    expect(page.get_by_role("button", name="Colours: dark")).to_be_visible()
    assert colour(page, "--ground") == dark


def colour(page, token: str) -> tuple[float, float, float]:
    """A colour of the page as sRGB in 0..1."""
    text = page.evaluate(
        """(token) => {
            const probe = document.createElement("i");
            probe.style.color = `var(${token})`;
            document.body.append(probe);
            const found = getComputedStyle(probe).color;
            probe.remove();
            return found;
        }""",
        token,
    )
    red, green, blue = (float(part) / 255 for part in re.findall(r"[\d.]+", text)[:3])
    return red, green, blue


def contrast(ink: tuple[float, ...], paper: tuple[float, ...]) -> float:
    """The contrast ratio of WCAG 2.2."""
    low, high = sorted(map(luminance, (ink, paper)))
    return (high + 0.05) / (low + 0.05)


def luminance(rgb: tuple[float, ...]) -> float:
    """Relative luminance, as WCAG defines it."""
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in rgb]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
