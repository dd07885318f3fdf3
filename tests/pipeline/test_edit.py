"""Changing a picture: nothing at strength 0, to the bit outside of a mask, at its own size and with its alpha."""

from __future__ import annotations

import warnings
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from sanakit.autoencoder import LatentEncoder, encode_tiled
from sanakit.base.errors import RequestError
from sanakit.base.sizes import Size
from sanakit.flow import SOLVERS
from sanakit.flow.path import time_from_angle
from sanakit.pipeline import ImageRequest, InputImage, Model, PictureDone, Shapes, Step, estimate, make_plan
from sanakit.pipeline.canvas import free_levels, place, to_drawn
from sanakit.pipeline.denoiser import denoise
from sanakit.pipeline.encoder import encode
from sanakit.pipeline.prompt import encode_prompt
from tests.oracles.bounds import within
from tests.oracles.tiny import Folders, Recipe
from tests.pipeline.drawing import CPU, open_diffusers, open_model


@pytest.fixture(scope="module")
def model(tiny: Folders) -> Model:
    return open_model(tiny(Recipe(sample_size=2)))


@pytest.fixture(scope="module")
def sprint(tiny: Folders) -> Model:
    return open_model(tiny(Recipe(sprint=True, sample_size=2)))


def picture(width: int = 64, height: int = 64, channels: int = 3) -> Image.Image:
    values = np.random.default_rng(0).integers(0, 256, (height, width, channels), dtype=np.uint8)
    return Image.fromarray(values)


def box_mask(width: int, height: int, box: tuple[int, int, int, int], level: int = 255) -> Image.Image:
    mask = Image.new("L", (width, height), 0)
    ImageDraw.Draw(mask).rectangle(box, fill=level)
    return mask


def ask(picture: Image.Image, **fields: Any) -> ImageRequest:
    return ImageRequest(**{"prompt": "a cube", "source": picture, "steps": 2, **fields})


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image).astype(int)


def test_strength_0_gives_the_source_and_loads_nothing(tiny: Folders):
    model, source = open_model(tiny(Recipe(sample_size=2))), picture(70, 51, 4)
    (found,) = model.images(ask(source, strength=0))
    assert (found.mode, found.tobytes()) == ("RGBA", source.tobytes())
    assert not any(model.parts.is_loaded(name) for name in ("text", "encoder", "transformer", "decoder"))


@pytest.mark.parametrize("size", [(64, 64), (70, 51), (31, 150), (200, 133)], ids=str)
@pytest.mark.parametrize("channels", [3, 4])
def test_outside_of_a_mask_every_bit_comes_back(model: Model, size: tuple[int, int], channels: int):
    source = picture(*size, channels)
    mask = box_mask(*size, (size[0] // 3, size[1] // 4, size[0] // 2, size[1] // 2))
    (found,) = model.images(ask(source, mask=mask))
    assert (found.size, found.mode) == (size, source.mode)
    kept = np.asarray(mask) == 0
    assert (pixels(found)[kept] == pixels(source)[kept]).all()
    assert (pixels(found)[~kept] != pixels(source)[~kept]).any()
    if channels == 4:
        assert (pixels(found)[..., 3] == pixels(source)[..., 3]).all()


def test_margins_are_new_and_the_source_stays(model: Model):
    source = picture(70, 51, 4)
    (found,) = model.images(ask(source, outpaint=(5, 0, 20, 9)))
    assert found.size == (95, 60)
    assert found.crop((5, 0, 75, 51)).tobytes() == source.tobytes()
    assert (pixels(found)[51:, :, 3] == 255).all()


@pytest.mark.parametrize("name", ["model", "sprint"])
def test_an_edit_is_drawn_from_its_seed_and_from_the_source(name: str, request: pytest.FixtureRequest):
    model, source = request.getfixturevalue(name), picture()
    both = model.images(ask(source, strength=0.5, seed=3, count=2))
    (second,) = model.images(ask(source, strength=0.5, seed=4))
    (other,) = model.images(ask(picture(64, 64).rotate(90), strength=0.5, seed=4))
    assert both[1].tobytes() == second.tobytes()
    assert len({image.tobytes() for image in (*both, other)}) == 3


def test_a_record_asks_for_its_source_and_gives_the_same_with_it(model: Model):
    source = InputImage.of(picture(70, 51), "cat.png")
    event = next(e for e in model.generate(ask(source, seed=2)) if isinstance(e, PictureDone))
    record = ImageRequest.from_json(event.request.to_json())
    with pytest.raises(RequestError, match=r"cat.png.*give that file as PICTURE"):
        model.generate(record)
    (again,) = model.images(record.replace(source=source))
    assert again.tobytes() == event.image.tobytes()


@pytest.mark.parametrize(("steps", "strength"), [(2, 0.5), (2, 0.6), (4, 0.5), (4, 0.8), (1, 1.0)])
def test_sprint_changes_pictures_as_diffusers_does(tiny: Folders, sprint: Model, steps: int, strength: float):
    request = ask(picture(), steps=steps, strength=strength, angles=None, seed=5, guidance=4.5, chi=False)
    even = tuple(torch.linspace(1.57080, 0, steps + 1)[:-1].tolist())
    request = request if steps <= 2 else request.replace(angles=even)
    plan = make_plan(sprint.spec, request)
    assert plan.edit is not None
    image = to_drawn(plan.edit.canvas, plan.edit.source) * 0.5 + 0.5
    found = latent_of(sprint, request)
    within("Sprint, changed", found, _theirs(tiny, request, image, steps, strength), 1e-4)


def _theirs(
    tiny: Folders, request: ImageRequest, image: torch.Tensor, steps: int, strength: float
) -> torch.Tensor:
    pipeline = open_diffusers("SanaSprintImg2ImgPipeline", tiny(Recipe(sprint=True, sample_size=2)))
    options = {} if steps == 2 else {"intermediate_timesteps": None}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        found: torch.Tensor = pipeline(
            prompt=request.prompt, image=image, strength=strength, num_inference_steps=steps, height=64, width=64,
            guidance_scale=4.5, complex_human_instruction=None, use_resolution_binning=False, output_type="latent",
            generator=torch.Generator("cpu").manual_seed(5), **options,
        ).images  # fmt: skip
    return found


@pytest.mark.parametrize("solver", [name for name in SOLVERS if name != "scm"])
def test_every_solver_begins_at_the_noised_source(model: Model, solver: str):
    """A source that the steps may hardly change comes back nearly as the autoencoder gives it."""
    source = ask(picture(), solver=solver, steps=50, strength=0.02)
    plan = make_plan(model.spec, source)
    assert plan.edit is not None and plan.steps == 1 and len(plan.clock.timesteps) in (0, 1)
    latent = encode(model.parts.encoder, to_drawn(plan.edit.canvas, plan.edit.source))
    prompt = encode_prompt(model.parts.text, model.spec, plan)
    asked: list[torch.Tensor] = []
    transformer = model.parts.transformer
    handle = transformer.register_forward_pre_hook(lambda module, inputs: asked.append(inputs[0]))
    list(denoise(transformer, prompt, plan, 0, CPU, latent))
    handle.remove()
    noise = torch.randn(latent.shape, generator=torch.Generator().manual_seed(0))
    wanted = (1 - plan.sigmas[0]) * latent + plan.sigmas[0] * noise
    torch.testing.assert_close(asked[0][:1], wanted, atol=1e-6, rtol=1e-5)


class Means:
    """An encoder whose latent is known: the mean of each position's pixels."""

    config = SimpleNamespace(ratio=32)

    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.avg_pool2d(pixels, 32)


@pytest.mark.parametrize("size", [(96, 128), (32, 224), (160, 160)], ids=str)
def test_tiles_of_an_encoder_cover_every_position(size: tuple[int, int]):
    encoder: Any = Means()
    values = torch.randn(1, 3, *size)
    torch.testing.assert_close(encode_tiled(encoder, values, tile=96, stride=64), encoder.encode(values))


def test_memory_says_what_the_encoder_adds(model: Model):
    shapes = Shapes.of(model.spec)
    plain = estimate(shapes, 64, 64, torch.float32)
    *same, added = estimate(shapes, 64, 64, torch.float32, encode=True)
    assert (tuple(same), added.stage) == (plain, "encode")
    parameters = sum(p.numel() for p in LatentEncoder(model.spec.autoencoder).parameters())
    assert (added.parameters, added.weights) == (parameters, 4 * parameters)
    assert added.work > 0


@pytest.mark.parametrize(
    ("source", "drawn", "content"),
    [((256, 256), (256, 256), (0, 0, 256, 256)), ((250, 240), (256, 256), (3, 8, 253, 248)),
     ((100, 100), (256, 256), (0, 0, 256, 256)), ((512, 256), (256, 256), (0, 64, 256, 192))],
    ids=str,
)  # fmt: skip
def test_a_canvas_is_padded_or_scaled_until_it_fits(source: Any, drawn: Any, content: Any):
    canvas = place(Size(*source), (0, 0, 0, 0), Size(*drawn))
    assert canvas.content == content
    assert to_drawn(canvas, picture(*source)).shape == (1, 3, drawn[1], drawn[0])


def test_a_position_is_as_free_as_its_freest_pixel_and_margins_are_free():
    mask = box_mask(64, 64, (40, 5, 40, 5), level=51)
    free = free_levels(place(Size(64, 64), (0, 0, 0, 32), Size(64, 96)), mask, 32)
    assert free[0, 0].tolist() == [[0, pytest.approx(0.2)], [0, 0], [1, 1]]


def test_grey_in_a_mask_changes_less(model: Model):
    source = picture(64, 32)
    mask = box_mask(64, 32, (0, 0, 31, 31), level=90)
    ImageDraw.Draw(mask).rectangle((32, 0, 63, 31), fill=255)
    plan = make_plan(model.spec, ask(source, mask=mask, steps=8))
    assert plan.edit is not None
    latent = encode(model.parts.encoder, to_drawn(plan.edit.canvas, plan.edit.source))
    found = latent_of(model, ask(source, mask=mask, steps=8))
    half = latent.shape[-1] // 2
    changes = (found - latent).abs().mean(dim=(0, 1, 2))
    assert 0 < changes[:half].mean() < changes[half:].mean()


@pytest.mark.parametrize("name", ["model", "sprint"])
def test_an_edit_by_equal_words_is_the_autoencoders_own_picture(name: str, request: pytest.FixtureRequest):
    """With the same guidance on both sides nothing moves; with other words, a source guidance or averages it does."""
    model, guidance = request.getfixturevalue(name), 2.0
    ways: list[dict[str, Any]] = [
        {"source_prompt": "a cube"}, {"source_prompt": "a cube", "averages": 3},
        {"source_prompt": "three green cones"}, {"source_prompt": "a cube", "source_guidance": 1.0},
    ]  # fmt: skip
    found = [
        latent_of(model, ask(picture(), **({"guidance": guidance, "source_guidance": guidance} | way)))
        for way in ways
    ]
    plan = make_plan(model.spec, ask(picture()))
    assert plan.edit is not None
    source = encode(model.parts.encoder, to_drawn(plan.edit.canvas, plan.edit.source))
    moved = [float((latent - source).abs().max()) for latent in found]
    assert max(moved[:2]) < 1e-4 < 1e-3 < min(moved[2:])


def test_a_guided_side_of_an_edit_by_words_reads_its_own_null_text(model: Model):
    """The source's velocity is that of a plain request for its words, at its own scale of guidance."""
    request = ask(picture(), source_prompt="two green cones", source_guidance=3.0, guidance=4.5, strength=1.0)
    plan = make_plan(model.spec, request)
    own = plan.of_source()
    assert (own.request.prompt, own.guidance.scale, plan.guidance.scale) == ("two green cones", 3.0, 4.5)
    prompt = encode_prompt(model.parts.text, model.spec, plan)
    plain = encode_prompt(
        model.parts.text, model.spec,
        make_plan(model.spec, ImageRequest(prompt="two green cones", guidance=3.0)),
    )  # fmt: skip
    assert prompt.source is not None and prompt.source.uncond is not None and plain.uncond is not None
    assert torch.equal(prompt.source.cond.states, plain.cond.states)
    assert torch.equal(prompt.source.uncond.states, plain.uncond.states)


def test_all_steps_of_a_sprint_model_follow_words_from_the_level_that_the_strength_says(sprint: Model):
    request = ask(picture(), source_prompt="a cone", steps=2)
    usual, low, whole = (make_plan(sprint.spec, request.replace(strength=s)).sigmas for s in (None, 0.3, 1.0))
    assert [len(sigmas) for sigmas in (usual, low, whole)] == [3, 3, 3]
    assert usual[0] == pytest.approx(0.7, abs=1e-5) and low[0] == pytest.approx(0.3, abs=1e-5)
    assert usual[1] < 0.7 and usual[-1] == 0
    assert whole == pytest.approx(
        make_plan(sprint.spec, ImageRequest(prompt="a cone", steps=2)).sigmas, abs=1e-5
    )
    assert len(make_plan(sprint.spec, request.replace(strength=0)).sigmas) == 1
    named = make_plan(sprint.spec, request.replace(steps=None, angles=(1.2, 0.8, 0.3)))
    assert not named.notes  # nothing is taken for pure noise
    assert named.sigmas == pytest.approx([*map(time_from_angle, (1.2, 0.8, 0.3)), 0], abs=1e-5)


def test_an_edit_by_inversion_finds_the_source_again_and_has_no_seed(model: Model):
    """With equal words it is the autoencoder's own picture, up to the iterations; other words move it, no seed does."""
    same = ask(picture(), source_prompt="a cube", how="inversion", guidance=1.0, steps=10)
    plan = make_plan(model.spec, same)
    assert plan.edit is not None and plan.edit.words is not None and plan.edit.words.guidance == 1.0
    source = encode(model.parts.encoder, to_drawn(plan.edit.canvas, plan.edit.source))
    ways = (same, same.replace(seed=7), same.replace(source_prompt="three green cones"))
    found, again, other = (latent_of(model, way) for way in ways)
    assert torch.equal(found, again)
    off, moved = (float((latent - source).abs().max()) for latent in (found, other))
    assert 10 * off < moved and off < 0.01
    events = list(model.generate(same))
    made = [e for e in events if isinstance(e, Step) and e.stage == "denoise"]
    assert (
        len(made) == made[0].total == plan.steps == 7 * 3
    )  # strength 0.7 of 10 steps, inverted by 2 iterations each


def test_an_inversion_notes_that_a_count_draws_one_picture(model: Model, sprint: Model):
    request = ask(picture(), source_prompt="a cone", how="inversion", count=2)
    assert any("draws no noise" in note for note in make_plan(model.spec, request).notes)
    with pytest.raises(RequestError, match=r"needs a flow model.*leave it out"):
        make_plan(sprint.spec, request)


def latent_of(model: Model, request: ImageRequest) -> torch.Tensor:
    """The latent of an edit."""
    plan = make_plan(model.spec, request)
    assert plan.edit is not None
    latent = encode(model.parts.encoder, to_drawn(plan.edit.canvas, plan.edit.source))
    prompt = encode_prompt(model.parts.text, model.spec, plan)
    return list(denoise(model.parts.transformer, prompt, plan, request.seed, CPU, latent))[-1].x


SIZED = box_mask(64, 64, (0, 0, 9, 9))
BAD = {
    "a mask without a source": ({"source": None, "mask": SIZED}, "mask is for changing a picture"),
    "a strength without a source": ({"source": None, "strength": 0.5}, "give one as source"),
    "a mask of another size": ({"mask": box_mask(64, 32, (0, 0, 9, 9))}, "has 64x32 pixels.*has 64x64"),
    "an empty mask": ({"mask": Image.new("RGBA", (64, 64), (255, 255, 255, 0))}, "is empty"),
    "a strength above 1": ({"strength": 1.1}, "from 0 to 1"),
    "a strength of nan": ({"strength": float("nan")}, "from 0 to 1"),
    "words without a source": ({"source": None, "source_prompt": "a"}, "give one as source"),
    "averages without words": ({"averages": 2}, "as source_prompt"),
    "source guidance without words": ({"source_guidance": 2.0}, "as source_prompt"),
    "inversion without words": ({"how": "inversion"}, "as source_prompt"),
    "an unknown way": ({"source_prompt": "a", "how": "ddim"}, "choose one of flow-edit, inversion"),
    "averages of an inversion": ({"source_prompt": "a", "how": "inversion", "averages": 2}, "draws none"),
    "no averages": ({"source_prompt": "a", "averages": 0}, "from 1 to 64"),
    "three margins": ({"outpaint": (1, 2, 3)}, "four numbers"),
    "margins of 0": ({"outpaint": (0, 0, 0, 0)}, "above 0"),
    "negative margins": ({"outpaint": (0, 0, 0, -8)}, "whole number from 0"),
    "margins in words": ({"outpaint": "wide"}, "left,top,right,bottom"),
    "margins and strength 0": ({"outpaint": (8, 0, 0, 0), "strength": 0.0}, "raise the strength"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_work_is_refused_before_a_model_is_opened(name: str):
    fields, words = BAD[name]
    with pytest.raises(RequestError, match=words):
        ask(picture(), **fields)


def test_pictures_past_all_bounds_are_refused(model: Model):
    with pytest.raises(RequestError, match="in all"):
        make_plan(model.spec, ask(picture(), outpaint=(16384, 16384, 0, 0)).replace(outpaint=(16384,) * 4))


def test_a_record_of_an_edit_survives_text():
    from sanakit.pipeline.parameters import parse_parameters, write_parameters

    made = ask(picture(), mask=SIZED, strength=0.75, outpaint=(1, 0, 0, 2))
    found = parse_parameters(write_parameters(made)).request
    assert found == made == ImageRequest.from_json(made.to_json())
    assert found.source is not None and not found.source.given
