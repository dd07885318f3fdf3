"""The page in a real browser, before a real server that draws with Toybox."""

from __future__ import annotations

import base64
import io
import json
import re
import time
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from sanakit.pipeline.png import read_picture
from sanakit.server.keys import KeyStore
from tests.browser.serving import serve

sync_api = pytest.importorskip("playwright.sync_api", reason="the page's tests need playwright: make browser")
expect = sync_api.expect

FEW = 3
"""Steps of pictures whose looks do not matter."""


def draw(page, prompt: str, steps: int = FEW) -> None:
    """Draw with the keyboard, and wait for the picture."""
    page.fill("#steps", str(steps))
    page.fill("#prompt", prompt)
    page.keyboard.press("Control+Enter")
    finished(page, prompt)


def finished(page, prompt: str) -> None:
    """Wait until the picture of a prompt is shown, and can be acted on."""
    expect(page.locator("#caption-prompt")).to_have_text(prompt)
    expect(page.locator("#picture[alt='" + prompt + "']:not([data-preview])")).to_be_visible()
    expect(page.locator("#actions:not([inert])")).to_be_visible()


def act(page, name: str) -> None:
    """Choose an action below the picture."""
    page.locator("#actions").get_by_role("button", name=name).click()


def saved(page, path: Path) -> Path:
    """Download the picture that is shown."""
    with page.expect_download() as download:
        act(page, "Download")
    download.value.save_as(path)
    return path


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def drop(page, path: Path) -> None:
    """Drop a file on the page."""
    page.evaluate(
        """(text) => {
            const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
            const files = new DataTransfer();
            files.items.add(new File([bytes], "dropped.png", { type: "image/png" }));
            window.dispatchEvent(new DragEvent("drop", { dataTransfer: files, bubbles: true, cancelable: true }));
        }""",
        base64.b64encode(path.read_bytes()).decode(),
    )


def test_a_newcomer_draws_an_example_and_sees_it_come(visit):
    page = visit()
    sources = page.evaluate(
        """() => {
            window.seen = [];
            new MutationObserver(() => window.seen.push(document.querySelector("#picture").src))
                .observe(document.querySelector("#picture"), { attributes: true, attributeFilter: ["src"] });
        }"""
    )
    example = page.locator(".examples button").first
    prompt = example.inner_text()
    example.click()
    expect(page.locator("#progress-text")).to_have_text(re.compile(r"Step \d+ of 20"))
    finished(page, prompt)
    sources = page.evaluate("() => window.seen")
    previews = [source for source in sources if source.startswith("data:image/jpeg")]
    assert len(set(previews)) > 3, "previews change while it draws"
    assert "/api/images/" in sources[-1]
    assert page.evaluate("() => document.querySelector('#picture').naturalWidth") == 256
    expect(page.locator("#announcer")).to_have_text(f"Drawn: {prompt}")
    expect(page.locator("#shelf button").first).to_have_attribute("aria-current", "true")


def test_a_picture_that_was_quicker_than_its_events_is_shown(visit):
    page = visit()

    def hold(route):
        """Let events through when their job has ended."""
        job = route.request.url.partition("/events")[0]
        while httpx.get(job).json()["state"] != "done":
            time.sleep(0.1)
        route.continue_()

    page.route("**/events?*", hold)
    draw(page, "a cyan cone on tiles", steps=1)
    expect(page.locator("#shelf button").first).to_have_attribute("aria-current", "true")


def test_escape_cancels(visit):
    page = visit()
    page.fill("#steps", "200")
    page.fill("#prompt", "a cone that takes long")
    page.keyboard.press("Control+Enter")
    expect(page.locator("#progress-text")).to_have_text(re.compile(r"Step \d+ of 200"))
    page.keyboard.press("Escape")
    expect(page.locator("#progress-text")).to_have_text("Cancelled")
    expect(page.locator("#cancel")).to_be_hidden()
    expect(page.locator("#announcer")).to_have_text("Cancelled")


def test_settings_and_gallery_are_there_after_a_reload(visit):
    page = visit()
    draw(page, "two yellow cubes on wood")
    shown = page.locator("#shelf button").first.get_attribute("data-picture")
    page.reload()
    expect(page.locator(f"#shelf [data-picture='{shown}']")).to_be_visible()
    assert page.input_value("#prompt") == "two yellow cubes on wood"
    assert page.input_value("#steps") == str(FEW)
    page.locator(f"#shelf [data-picture='{shown}']").click()
    finished(page, "two yellow cubes on wood")


def test_the_gallery_survives_a_server_that_is_killed(visit, tmp_path: Path):
    # A job that outlives the page's way back to the new server, however fast the chip.
    long = ("--max-steps", "1000")
    with serve(tmp_path / "data", 0, *long) as (address, process):
        page = visit(address)
        draw(page, "a black pyramid on snow")
        page.fill("#steps", "1000")
        page.keyboard.press("Control+Enter")
        expect(page.locator("#progress-text")).to_have_text(re.compile(r"Step \d+ of 1000"))
        process.kill()
        expect(page.locator("#server-state")).to_have_text("Server not reachable")
    with serve(tmp_path / "data", int(address.rpartition(":")[2]), *long):
        # The job goes on, and the page finds it without being touched.
        expect(page.locator("#server-state")).to_have_text("Drawing 1 job")
        page.reload()
        expect(page.locator("#shelf button")).to_have_count(1)
        expect(page.locator("#progress-text")).to_have_text(re.compile(r"Step \d+ of 1000"))
        page.keyboard.press("Escape")
        expect(page.locator("#progress-text")).to_have_text("Cancelled")
    page.faults.clear()  # the browser says that connections were refused


def test_search_finds_words_of_prompts(visit):
    page = visit()
    draw(page, "a pink cylinder on tiles")
    page.keyboard.press("Control+k")
    expect(page.locator("#search")).to_be_focused()
    page.keyboard.type("pink cylinder")
    expect(page.locator("#shelf button")).to_have_count(1)
    page.fill("#search", "no such words")
    expect(page.locator("#shelf-hint")).to_have_text("No picture has “no such words” in its prompt.")


def test_recreate_gives_the_same_pixels_and_vary_others(visit, tmp_path: Path):
    page = visit()
    draw(page, "a small red cube on sand at noon")
    first = saved(page, tmp_path / "first.png")
    seed = page.input_value("#seed")
    act(page, "Recreate")
    expect(page.locator("#shelf button")).not_to_have_count(1)
    finished(page, "a small red cube on sand at noon")
    again = saved(page, tmp_path / "again.png")
    assert page.input_value("#seed") == seed
    assert np.array_equal(pixels(first), pixels(again))
    act(page, "Vary seed")
    expect(page.locator("#seed")).not_to_have_value(seed)
    expect(page.locator("#caption-recipe")).to_have_text(re.compile(rf"seed (?!{seed}\b)\d+"))
    finished(page, "a small red cube on sand at noon")
    assert not np.array_equal(pixels(first), pixels(saved(page, tmp_path / "other.png")))


def test_a_downloaded_picture_holds_its_settings_and_loads_them_when_dropped(visit, tmp_path: Path):
    page = visit()
    page.fill("#seed", "9223372036854775807")  # no double holds it
    page.fill("#guidance", "2.5")
    draw(page, "a purple cone on water")
    path = saved(page, tmp_path / "x.png")
    record = read_picture(path)
    assert (record.request.prompt, record.request.seed) == ("a purple cone on water", 2**63 - 1)
    assert record.source_type is not None
    other = visit()
    drop(other, path)
    expect(other.locator("#prompt")).to_have_value("a purple cone on water")
    shown = [other.input_value(f"#{name}") for name in ("seed", "guidance", "steps", "size")]
    assert shown == ["9223372036854775807", "2.5", str(FEW), "256x256"]
    expect(other.locator("#seed-lock")).to_have_attribute("aria-pressed", "true")


def test_a_dropped_picture_without_settings_becomes_the_one_to_change(visit, tmp_path: Path):
    page = visit()
    Image.new("RGB", (96, 64)).save(tmp_path / "plain.png")
    drop(page, tmp_path / "plain.png")
    expect(page.get_by_role("img", name="To change: dropped.png")).to_be_visible()
    expect(page.locator("#size")).to_be_disabled()
    (tmp_path / "text.png").write_text("no picture", encoding="utf-8")
    drop(page, tmp_path / "text.png")
    expect(page.get_by_role("alert")).to_have_text("This file isn't a picture that the browser can read.")
    page.faults.clear()  # the browser logs the status 422


def test_the_scene_builder_writes_what_toybox_reads(visit):
    page = visit()
    page.click("#scene-group summary")
    first = page.get_by_role("group", name="Thing 1")
    first.get_by_label("Shape").select_option("cone")
    first.get_by_role("radio", name="orange").check()
    page.get_by_label("The first stands").select_option("behind")
    page.get_by_label("Floor").select_option("snow")
    page.get_by_label("Light").select_option("night")
    said = "a large orange metal cone behind a small blue rubber cube on snow at night"
    expect(page.locator("#prompt")).to_have_value(said)
    first.get_by_label("How many").select_option("3")
    page.get_by_role("group", name="Thing 2").get_by_label("Material").select_option("")
    said = "three large orange metal cones and a small blue cube on snow at night"
    expect(page.locator("#prompt")).to_have_value(said)
    expect(page.get_by_role("button", name="Another thing")).to_be_disabled()


def test_drawing_while_typing_keeps_the_seed_and_leaves_nothing_behind(visit, address: str):
    page = visit()
    page.fill("#seed", "5")
    page.fill("#steps", "2")
    page.get_by_role("switch", name="Draw while typing").check()
    page.locator("#prompt").press_sequentially("a red cube", delay=40)
    finished(page, "a red cube")
    page.locator("#prompt").press_sequentially(" on grass", delay=40)
    finished(page, "a red cube on grass")
    expect(page.locator("#caption-recipe")).to_contain_text("seed 5")
    # Jobs before it are forgotten in the background, right after the picture is shown.
    page.wait_for_function(
        "async () => (await (await fetch('/api/jobs')).json()).jobs.filter((job) => job.live).length < 2"
    )
    live = [job for job in _jobs(page) if job["live"]]
    assert [job["request"]["prompt"] for job in live] == ["a red cube on grass"]
    page.get_by_role("switch", name="Draw while typing").uncheck()
    expect(page.locator("#shelf button[title='a red cube on grass']")).to_have_count(0)


def _jobs(page) -> list[dict]:
    return json.loads(page.evaluate("async () => (await fetch('/api/jobs?limit=200')).text()"))["jobs"]


def test_a_mask_keeps_what_is_outside_of_it(visit, tmp_path: Path):
    page = visit()
    draw(page, "a red cube on snow at noon")
    before = pixels(saved(page, tmp_path / "before.png"))
    act(page, "Edit")
    page.get_by_role("button", name="Paint a mask").click()
    box = page.locator("#overlay").bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.25, box["y"] + box["height"] * 0.25)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.35, box["y"] + box["height"] * 0.25, steps=4)
    page.mouse.up()
    page.locator("#tools").get_by_role("button", name="Done").click()
    draw(page, "a blue sphere on snow at noon")
    changed = (before != pixels(saved(page, tmp_path / "after.png"))).any(axis=2)
    assert changed[30:100, 30:130].any()
    assert not changed[128:].any() and not changed[:, 160:].any()
    assert read_picture(tmp_path / "after.png").request.mask is not None


def test_an_edit_is_recreated_with_its_source_and_mask(visit, tmp_path: Path):
    page = visit()
    source = np.zeros((64, 96, 3), np.uint8)
    source[:, 48:] = 200
    mask = np.zeros((64, 96), np.uint8)
    mask[:32] = 255
    Image.fromarray(source).save(tmp_path / "source.png")
    Image.fromarray(mask).save(tmp_path / "mask.png")
    page.click("#edit-group summary")
    page.locator("#edit input[type=file]").set_input_files(tmp_path / "source.png")
    expect(page.get_by_role("img", name="To change: source.png")).to_be_visible()
    page.locator("#edit input[type=file]").set_input_files(tmp_path / "mask.png")
    expect(page.get_by_role("button", name="Without a mask")).to_be_visible()
    draw(page, "a green cone on sand")
    before = pixels(saved(page, tmp_path / "before.png"))
    shown = page.locator("#shelf button").first.get_attribute("data-picture")
    other = visit()
    other.locator(f"#shelf [data-picture='{shown}']").click()
    finished(other, "a green cone on sand")
    act(other, "Recreate")
    expect(other.locator("#shelf button").first).not_to_have_attribute("data-picture", shown)
    finished(other, "a green cone on sand")
    assert np.array_equal(before, pixels(saved(other, tmp_path / "after.png")))
    records = [read_picture(tmp_path / f"{name}.png").request for name in ("before", "after")]
    assert records[0] == records[1] and records[1].mask is not None
    expect(other.get_by_role("img", name="To change: source")).to_be_visible()  # to go on from there
    expect(other.get_by_role("button", name="Without a mask")).to_be_visible()


def test_what_is_said_about_a_picture_is_there_after_a_reload(visit):
    page = visit()
    draw(page, "a red cat on snow")
    expect(page.locator("#caption-recipe")).to_contain_text("it does not know: cat")
    page.reload()
    page.locator("#shelf button[title='a red cat on snow']").click()
    expect(page.locator("#caption-recipe")).to_contain_text("it does not know: cat")


def test_boxes_on_the_picture_become_regions(visit):
    page = visit()
    draw(page, "on grass at noon")
    page.click("#regions-group summary")
    page.get_by_role("button", name="Draw boxes").click()
    box = page.locator("#overlay").bounding_box()
    page.mouse.move(box["x"] + 1, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] - 1, steps=4)
    page.mouse.up()
    page.get_by_label("Words of box 1").fill("a red cube")
    page.keyboard.press("Control+Enter")
    finished(page, "on grass at noon")
    (region,) = _jobs(page)[0]["request"]["regions"]
    assert region["prompt"] == "a red cube"
    assert region["box"] == pytest.approx([0, 0.5, 0.5, 0.5], abs=0.01)


def test_a_grid_shows_a_picture_for_each_pair(visit):
    page = visit()
    page.fill("#prompt", "a green sphere on wood")
    page.get_by_role("tab", name="X/Y grid").click()
    page.fill("#x-values", "1, 2")
    page.fill("#y-values", "1, 4.5")
    page.get_by_role("button", name="Draw the grid").click()
    cells = page.get_by_role("button", name=re.compile("Open: a green sphere on wood"))
    expect(cells).to_have_count(4)
    heads = page.locator(".sheet th").all_inner_texts()
    assert heads == ["Steps 1", "Steps 2", "Guidance 1", "Guidance 4.5"]
    cells.nth(1).click()
    expect(page.locator("#caption-recipe")).to_contain_text("2 steps · seed")


def test_a_value_that_cannot_be_taken_is_not_passed_over(visit):
    page = visit()
    page.fill("#prompt", "a cube")
    page.fill("#steps", "0")
    page.keyboard.press("Control+Enter")
    expect(page.get_by_role("alert")).to_have_text(
        re.compile("^Steps: Value must be greater than or equal to 1")
    )
    expect(page.locator("#steps")).to_be_focused()
    expect(page.locator("#progress")).to_be_hidden()


def test_many_jobs_leave_the_page_connections_to_work_with(visit):
    """A browser opens six to one server, and an open stream of events holds one."""
    page = visit()
    page.fill("#steps", "30")
    for number in range(8):
        page.fill("#prompt", f"job number {number}")
        page.keyboard.press("Control+Enter")
    finished(page, "job number 7")
    expect(page.locator("#server-state")).to_have_text("Ready")
    expect(page.locator("#shelf button[title^='job number']")).to_have_count(8)


def test_two_pictures_are_compared_with_a_slider(visit):
    page = visit()
    draw(page, "a white cone on grass")
    draw(page, "a white cone on sand")
    act(page, "Compare")
    page.locator("#shelf button[title='a white cone on grass']").first.click()
    slider = page.get_by_role("slider", name="How much of the second picture is covered")
    slider.fill("20")
    after = page.locator(".versus .after")
    assert after.evaluate("(image) => getComputedStyle(image).clipPath") == "inset(0px 0px 0px 20%)"
    page.get_by_role("tab", name="Picture").click()
    expect(page.locator("#caption-prompt")).to_have_text("a white cone on sand")


def test_a_server_with_keys_is_asked_with_the_key(visit):
    page = visit()
    asked = []

    def guard(route):
        given = route.request.headers.get("authorization")
        asked.append(given)
        if given == "Bearer right":
            return route.continue_()
        fault = {"error": {"message": "no key", "type": "KeyError", "field": None}}
        return route.fulfill(status=401, json=fault)

    page.route("**/api/**", guard)
    page.reload()
    page.fill("#key", "wrong")
    page.keyboard.press("Enter")
    expect(page.locator("#key-hint")).to_contain_text("doesn't know that key")
    page.fill("#key", "right")
    page.keyboard.press("Enter")
    expect(page.locator("#server-state")).to_have_text("Ready")
    assert asked[:3] == [None, "Bearer wrong", "Bearer right"]
    page.faults.clear()  # the browser logs the status 401


def test_a_server_with_keys_shows_its_pictures(visit, tmp_path: Path):
    """They are fetched by <img>, which sends no key."""
    (tmp_path / "data").mkdir()
    key, _ = KeyStore(tmp_path / "data").add("anna", ["draw"])
    with serve(tmp_path / "data") as (address, _):
        page = visit(address, key=key)
        draw(page, "a grey cube on tiles")
        for name in ("#picture", "#shelf img"):
            assert page.locator(name).first.evaluate(
                "async (image) => (await image.decode(), image.naturalWidth)"
            )
        assert read_picture(saved(page, tmp_path / "x.png")).request.prompt == "a grey cube on tiles"
        picture = page.locator("#picture").get_attribute("src")
        (cookie,) = page.context.cookies(f"{address}{picture}")
        assert cookie["httpOnly"] and cookie["sameSite"] == "Strict"
        assert page.context.cookies(f"{address}/api/jobs") == []
        stranger = page.context.browser.new_context()
        assert stranger.request.get(f"{address}{picture}").status == 401
        stranger.close()
        page.reload()  # the key is still in the tab
        page.locator("#shelf button").click()
        finished(page, "a grey cube on tiles")
        assert page.locator("#picture").evaluate(
            "async (image) => (await image.decode(), image.naturalWidth)"
        )
    page.faults.clear()  # the browser logs the status 401 of the first request


def test_what_the_server_refuses_is_said_and_marked(visit):
    page = visit()
    fault = {
        "error": {
            "message": "the queue is full: try again later",
            "type": "QueueFullError",
            "field": "request.steps",
        }
    }
    page.route(
        "**/api/jobs", lambda route: route.fulfill(status=429, json=fault, headers={"Retry-After": "7"})
    )
    page.fill("#prompt", "a cube")
    page.click("#draw")
    expect(page.get_by_role("alert")).to_have_text("The queue is full: try again later. Try again in 7 s.")
    expect(page.locator("#steps")).to_have_attribute("aria-invalid", "true")
    page.faults.clear()  # the browser logs the status 429


def test_a_screenshot_of_the_page_is_no_blank(visit):
    page = visit()
    with Image.open(io.BytesIO(page.screenshot())) as image:
        assert len(image.convert("RGB").getcolors(1 << 20)) > 50
