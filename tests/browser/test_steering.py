"""LoRAs and ControlNets that a server offers: sliders, a scribble, and what arrives in the request."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from sanakit.layers.lora import LowRank
from sanakit.transformer import SanaTransformer, copy_base
from sanakit.weights import LoRA, read_model_spec, resolve, save_control, write_lora
from tests.browser.serving import serve

sync_api = pytest.importorskip("playwright.sync_api", reason="the page's tests need playwright: make browser")
expect = sync_api.expect


@pytest.fixture(scope="module")
def address(playwright: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server that offers a LoRA and a ControlNet, of random numbers, beside Toybox."""
    folder = tmp_path_factory.mktemp("offers")
    (folder / "loras").mkdir()
    config = read_model_spec(resolve("toybox")).transformer
    low = LowRank(down=torch.randn(1, 2, config.width), up=torch.randn(1, config.width, 2))
    write_lora(folder / "loras/style.safetensors", LoRA(layers={"blocks.1.cross.q": low}))
    net = copy_base(SanaTransformer(config), 1)
    save_control(folder / "controls/scribble", net.control, net)
    options = ("--loras", folder / "loras", "--controls", folder / "controls")
    with serve(folder / "data", 0, *map(str, options)) as (address, _):
        yield address


def test_a_lora_and_a_scribble_reach_the_request_and_are_there_when_it_is_drawn_again(visit):
    page = visit()
    page.fill("#steps", "2")
    page.fill("#prompt", "a red cube")
    page.click("#loras-group summary")
    page.get_by_role("switch", name="style").check()
    page.get_by_role("slider", name=re.compile("Weight of style")).fill("0.6")
    page.click("#control-group summary")
    page.get_by_role("button", name="Draw a scribble").click()
    box = page.locator("#overlay").bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.3, box["y"] + box["height"] * 0.3)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.7, box["y"] + box["height"] * 0.7, steps=4)
    page.mouse.up()
    expect(page.get_by_role("img", name="The control picture")).to_be_visible()
    page.keyboard.press("Control+Enter")
    expect(page.locator("#actions:not([inert])")).to_be_visible()
    (first,) = requests(page)
    assert [(one["name"], one["weight"]) for one in first["loras"]] == [("style.safetensors", 0.6)]
    assert [one["network"]["name"] for one in first["controls"]] == ["scribble"]
    page.reload()
    page.locator("#shelf button").first.click()
    page.locator("#actions").get_by_role("button", name="Recreate").click()
    expect(page.locator("#shelf button")).to_have_count(2)
    assert requests(page) == [first, first]
    expect(page.locator("#control img")).to_have_count(1)  # to go on from there
    page.click("#loras-group summary")
    expect(page.get_by_role("switch", name="style")).to_be_checked()


def requests(page: Any) -> list[dict[str, Any]]:
    """Those of all jobs, the newest first."""
    found = page.evaluate(
        "async () => (await (await fetch('/api/jobs')).json()).jobs.map((job) => job.request)"
    )
    return list(found)
