"""Words for a box: its tokens alone read them, by a plain reference; all else is as without regions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from sanakit.adapt.compile import compile_blocks
from sanakit.adapt.graphs import RecordedTransformer
from sanakit.base.errors import RequestError
from sanakit.base.sizes import Size
from sanakit.layers.attention import CrossAttention
from sanakit.pipeline import ImageRequest, Model, encode_prompt, make_plan
from sanakit.pipeline.denoiser import denoise
from sanakit.pipeline.parameters import parse_parameters, write_parameters
from sanakit.pipeline.regions import Region, name_all, tokens_read
from tests.oracles.tiny import Folders, Recipe
from tests.pipeline.drawing import CPU, open_model
from tests.pipeline.test_edit import picture


@pytest.fixture(scope="module")
def model(tiny: Folders) -> Model:
    return open_model(tiny(Recipe(sample_size=2)))


def ask(*regions: str, **fields: Any) -> ImageRequest:
    asked = {"prompt": "a cube", "width": 128, "height": 96, "steps": 2, "guidance": 3.0, "regions": regions}
    return ImageRequest(**{**asked, **fields})


def latent(model: Model, request: ImageRequest, transformer: Any = None) -> Tensor:
    plan = make_plan(model.spec, request)
    prompt = encode_prompt(model.parts.text, model.spec, plan)
    return list(denoise(transformer or model.parts.transformer, prompt, plan, request.seed, CPU))[-1].x


def plainly(cross: CrossAttention, x: Tensor, texts: list[Tensor], reads: Tensor) -> Tensor:
    """Token by token: softmax over the keys of the one text that the token reads."""
    rows = []
    for token, number in zip(x[0], reads.tolist(), strict=True):
        key, value = (
            part.unflatten(-1, (cross.heads, -1)) for part in cross.kv(texts[number]).chunk(2, dim=-1)
        )
        query = cross.q(token).unflatten(-1, (cross.heads, -1))
        weights = torch.einsum("hd,lhd->hl", query, key).div(query.shape[-1] ** 0.5).softmax(-1)
        rows.append(cross.out(torch.einsum("hl,lhd->hd", weights, value).flatten()))
    return torch.stack(rows)[None]


@torch.no_grad()
def test_cross_attention_with_a_mask_per_token_is_attention_to_each_tokens_own_text():
    cross = CrossAttention(16, 2, qk_norm=False, qk_norm_eps=1e-5)
    texts, x = [torch.randn(length, 16) for length in (3, 5, 2)], torch.randn(1, 7, 16)
    reads = torch.tensor([0, 1, 1, 2, 0, 2, 1])
    owner = torch.tensor([0] * 3 + [1] * 5 + [2] * 2)
    found = cross(x, torch.cat(texts)[None], (owner[None] == reads[:, None])[None])
    torch.testing.assert_close(found, plainly(cross, x, texts, reads))


@pytest.mark.parametrize("guidance", [3.0, 1.0])
def test_every_block_reads_what_the_plan_says(model: Model, guidance: float):
    """The whole network against one whose cross-attentions are replaced by the plain reference."""
    request = ask("0,0,0.5,0.5:a large sphere", "64,32,64,64:two green cones on sand", guidance=guidance)
    plan = make_plan(model.spec, request)
    prompt = encode_prompt(model.parts.text, model.spec, plan)
    found = latent(model, request)
    assert plan.reads is not None and prompt.owners is not None
    inner: Any = model.parts.transformer
    network = getattr(inner, "part", inner)
    states = network.embed_text(prompt.cond)[0]
    texts = [states[(prompt.owners == 0) | (prompt.owners == number)] for number in range(3)]
    assert len({len(text) for text in texts}) == 3  # each region has words of its own
    real: Callable[..., Tensor] = CrossAttention._attend

    def reference(self: CrossAttention, x: Tensor, kv: Any, mask: Tensor | None) -> Tensor:
        conditional = plainly(self, x[-1:], texts, plan.reads)
        if len(x) == 1:
            return conditional
        null = None if mask is None else mask[:-1, 0]
        before = type(kv)(kv.key[:-1], kv.value[:-1])
        return torch.cat([real(self, x[:-1], before, null), conditional])

    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(CrossAttention, "_attend", reference)
        wanted = latent(model, request)
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)


def test_a_region_of_all_says_the_prompt(model: Model):
    plain = latent(model, ask())
    for request in (ask("0,0,1,1:a cube"), ask("0,0,1,1:A Cube", prompt="")):
        torch.testing.assert_close(latent(model, request), plain, atol=1e-5, rtol=1e-4)


def test_words_of_a_box_are_not_read_outside_of_it(model: Model):
    """Two boxes that change places change the picture, and with them back in place nothing has changed."""
    boxes, words = ("0,0,0.5,1", "0.5,0,0.5,1"), ("a cube", "two green cones")
    prompt = "a cube and two green cones"
    straight, crossed, again = (
        latent(model, ask(*(f"{box}:{text}" for box, text in zip(boxes, order, strict=True)), prompt=prompt))
        for order in (words, words[::-1], words)
    )
    assert torch.equal(straight, again)
    assert not torch.allclose(straight, crossed, atol=1e-3)


NAMED: dict[str, tuple[str, tuple[str, ...], str]] = {
    "none is said": ("on grass", ("a cube", "a cone"), "a cube and a cone, on grass"),
    "three": ("on grass", ("a", "b", "c"), "a, b and c, on grass"),
    "no prompt": ("", ("a cube",), "a cube"),
    "all are said": ("a cube by a cone", ("a cone", "A Cube"), "a cube by a cone"),
    "one is said": ("a cube on grass", ("a cone", "a cube"), "a cone, a cube on grass"),
    "said once, asked for twice": ("a cube on grass", ("a cube", "a cube"), "a cube, a cube on grass"),
    "a part of a word": ("a cubed root", ("a cube",), "a cube, a cubed root"),
    "a part of what is said": ("a red cube", ("a red cube", "cube"), "cube, a red cube"),
}


@pytest.mark.parametrize("name", NAMED)
def test_one_text_names_all_regions(name: str):
    prompt, words, text = NAMED[name]
    found, places = name_all(prompt, words)
    assert found == text
    assert [found[first:end].lower() for first, end in places] == [each.lower() for each in words]
    assert len(set(places)) == len(places)


def test_each_token_belongs_to_the_region_that_says_it(model: Model):
    request = ask("0,0,0.5,1:A  red cube", "0.5,0,0.5,1:two cones", prompt="on sand")
    prompt = encode_prompt(model.parts.text, model.spec, make_plan(model.spec, request))
    assert prompt.owners is not None
    order = [int(owner) for owner in torch.unique_consecutive(prompt.owners)]
    assert order == [0, 1, 0, 2, 0]  # <bos>, the first, "and", the second, the prompt


def test_fast_forms_read_regions_as_well(model: Model, tiny: Folders):
    request = ask("0,0,0.5,1:a large sphere")
    plain = latent(model, request)
    fresh: Any = open_model(tiny(Recipe(sample_size=2)), fast="off").parts.transformer
    network = fresh.part

    def recorder(run: Callable[[], Tensor]) -> tuple[Tensor, Callable[[], object]]:
        out = run()
        return out, lambda: out.copy_(run())

    with torch.no_grad():
        recorded = latent(model, request, RecordedTransformer(network, recorder))
        torch.testing.assert_close(recorded, plain, atol=1e-4, rtol=1e-4)
        compiled = latent(model, request, compile_blocks(network, backend="eager"))
        torch.testing.assert_close(compiled, plain, atol=1e-4, rtol=1e-4)


def boxes(*boxes: tuple[float, float, float, float]) -> list[list[int]]:
    regions = [Region(box=box, prompt="a") for box in boxes]
    return tokens_read(regions, Size(128, 96), lambda box: box, Size(128, 96), 32).view(3, 4).tolist()


def test_a_token_reads_the_last_box_that_holds_its_centre():
    assert boxes((0, 0, 0.5, 1)) == [[1, 1, 0, 0]] * 3
    assert boxes((0, 0, 64, 96), (32, 32, 64, 32)) == [[1, 1, 0, 0], [1, 2, 2, 0], [1, 1, 0, 0]]
    assert boxes((15, 15, 34, 33)) == [[1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]  # centres at 16, 48
    assert boxes((100, 70, 2, 2)) == [[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 1]]


def test_boxes_of_an_edit_lie_on_its_canvas(model: Model):
    request = ImageRequest(
        prompt="a",
        source=picture(64, 32),
        outpaint=(0, 0, 0, 32),
        regions=["0,32,64,32:b"],
        width=128,
        height=128,
    )
    reads = make_plan(model.spec, request).reads
    assert reads is not None
    assert reads.view(4, 4).tolist() == [[0] * 4, [0] * 4, [1] * 4, [1] * 4]


def test_regions_are_recorded_and_change_the_picture(model: Model):
    request = ask("0,0,64,96:a, b: c", "0.5,0,0.5,1:d")
    assert parse_parameters(write_parameters(request)).request == request
    assert ImageRequest.from_json(request.to_json()) == request
    (one,), (other,) = model.images(request), model.images(ask())
    assert one.tobytes() != other.tobytes()


BAD = {
    "a red cube": "left,top,width,height:words",
    "0,0,1:a": "left,top,width,height:words",
    "0,0,1,x:a": "left,top,width,height:words",
    "0,0,1,1:": "needs words",
    "0,0,0,1:a": "above 0",
    "-1,0,1,1:a": "place from 0",
    "nan,0,1,1:a": "four numbers",
}


@pytest.mark.parametrize("text", BAD)
def test_bad_regions_are_refused(text: str):
    with pytest.raises(RequestError, match=BAD[text]):
        ask(text)


@pytest.mark.parametrize("text", ["0.6,0,0.5,1:a", "100,0,64,64:a"])
def test_a_region_outside_of_the_picture_is_refused_before_anything_is_loaded(model: Model, text: str):
    with pytest.raises(RequestError, match="outside of the picture of 128x96"):
        model.generate(ask(text))


def test_words_of_regions_are_held_to_the_length_of_prompts(model: Model):
    with pytest.raises(RequestError, match="the prompt, with the words of its regions, is too long"):
        model.images(ask("0,0,1,1:a", f"0,0,1,1:{'cube ' * 400}"))


def test_other_values_are_no_regions():
    for bad in ("0,0,1,1:a", 3):
        with pytest.raises(RequestError, match="list of regions"):
            ImageRequest(prompt="a", regions=bad)  # type: ignore[arg-type]
    with pytest.raises(RequestError, match="at most 32"):
        ask(*["0,0,1,1:a"] * 33)
    with pytest.raises(RequestError, match="box and a prompt"):
        ImageRequest.from_json({"prompt": "a", "regions": [{"prompt": "a"}]})
