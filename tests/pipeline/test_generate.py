"""The generator of events: order, repeatability, stopping, memory, numbers that break."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from sanakit.adapt.runner import unwrapped
from sanakit.base.errors import ConfigError, ModelNotFoundError, NumericsError, RequestError, WeightsError
from sanakit.base.sizes import Size, nearest_bucket
from sanakit.pipeline import (
    Cancelled,
    Done,
    Event,
    ImageRequest,
    Note,
    PictureDone,
    Shapes,
    StageDone,
    StageStarted,
    Started,
    Step,
    decode,
    estimate,
    load,
    make_plan,
    memory,
)
from sanakit.pipeline.decoder import fit, to_image
from sanakit.pipeline.prompt import instruction_of
from tests.oracles.tiny import Folders, Recipe
from tests.pipeline.drawing import open_diffusers, open_model, ours, relative, theirs

REQUEST = ImageRequest(prompt="a red cube", width=64, height=64, steps=3, seed=11)


def test_events_come_in_order(tiny: Folders):
    events = list(open_model(tiny()).generate(REQUEST.replace(count=2)))
    kinds = [(type(event).__name__, getattr(event, "stage", "")) for event in events]
    load_, denoise = (("StageStarted", "load"), ("StageDone", "load")), ("Step", "denoise")
    picture = [("StageStarted", "denoise"), *[denoise] * 3, ("StageDone", "denoise")]
    decode = [("StageStarted", "decode"), ("StageDone", "decode"), ("PictureDone", "")]
    first = [("Started", ""), *load_, ("StageStarted", "text"), ("StageDone", "text"), *load_]
    assert kinds == [*first, *picture, *load_, *decode, *picture, *decode, ("Done", "")]


def test_events_tell_what_they_should(tiny: Folders):
    events = list(open_model(tiny()).generate(REQUEST.replace(width=96, count=2)))
    started = next(event for event in events if isinstance(event, Started))
    assert (started.drawn_width, started.drawn_height) == (96, 64)
    assert started.request.solver == "dpm2"
    steps = [event for event in events if isinstance(event, Step)]
    assert [(event.index, event.total) for event in steps] == [(0, 3), (1, 3), (2, 3)] * 2
    assert all(event.latent.shape == (1, 8, 2, 3) for event in steps)
    assert not any(event.latent.requires_grad for event in steps)
    pictures = [event for event in events if isinstance(event, PictureDone)]
    assert [(event.index, event.seed, event.image.size) for event in pictures] == [
        (0, 11, (96, 64)),
        (1, 12, (96, 64)),
    ]
    done = events[-1]
    assert isinstance(done, Done)
    assert set(done.timings) == {"load", "text", "denoise", "decode"}
    spent = sum(event.seconds for event in events if isinstance(event, StageDone))
    assert spent == pytest.approx(sum(done.timings.values()))


def test_gradients_stay_on_for_the_caller(tiny: Folders):
    for _ in open_model(tiny()).generate(REQUEST):
        assert torch.is_grad_enabled()
        assert not torch.is_inference_mode_enabled()


@pytest.mark.parametrize("recipe", [Recipe(), Recipe(sprint=True)], ids=["sana", "sprint"])
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_picture_k_equals_its_seed_drawn_alone(tiny: Folders, recipe: Recipe, dtype: str):
    folder = tiny(recipe)
    together = load(folder, "cpu", dtype).images(REQUEST.replace(count=3))
    for k, image in enumerate(together):
        alone = load(folder, "cpu", dtype).images(REQUEST.replace(seed=11 + k))[0]
        assert image.tobytes() == alone.tobytes()
    assert together[0].tobytes() != together[1].tobytes()


def test_pictures_drawn_together_are_those_drawn_alone_but_for_rounding(tiny: Folders):
    request = REQUEST.replace(count=5, seed=3)
    alone = open_model(tiny()).images(request)
    model = open_model(tiny())
    model.together = 2
    events = list(model.generate(request))
    drawn = [event for event in events if isinstance(event, PictureDone)]
    assert [(one.index, one.seed, one.request.seed) for one in drawn] == [(k, 3 + k, 3 + k) for k in range(5)]
    assert [one.made for one in drawn] == [{"together": "2"}] * 4 + [{}]
    for one, other in zip(drawn, alone, strict=True):
        assert np.abs(np.asarray(one.image, dtype=int) - np.asarray(other, dtype=int)).max() <= 1
    assert drawn[4].image.tobytes() == alone[4].tobytes()
    sizes = [len(event.latent) for event in events if isinstance(event, Step)]
    assert sizes == [2] * request.steps + [2] * request.steps + [1] * request.steps


def test_stopping_pictures_that_are_drawn_together(tiny: Folders):
    model = open_model(tiny())
    model.together = 2
    seen: list[Event] = []

    def stop() -> bool:
        return sum(isinstance(event, PictureDone) for event in seen) == 3

    for event in model.generate(REQUEST.replace(count=6), stop):
        seen.append(event)
    assert isinstance(seen[-1], Cancelled) and seen[-1].finished == 3


def test_what_was_asked_before_changes_nothing(tiny: Folders):
    model = open_model(tiny())
    first = model.images(REQUEST)[0].tobytes()
    model.images(REQUEST.replace(prompt="three cones", negative="fog", guidance=1.0, solver="euler"))
    assert model.images(REQUEST)[0].tobytes() == first


@pytest.mark.parametrize(
    "change",
    [{"prompt": "three green cones"}, {"negative": "fog"}, {"guidance": 2.0}, {"seed": 12}, {"solver": "euler"},
     {"steps": 4}, {"cfg_interval": (0.0, 0.5)}, {"pag": 1.0}],
    ids=str,
)  # fmt: skip
def test_every_field_matters(tiny: Folders, change: dict):
    model = open_model(tiny())
    base, _ = ours(model, REQUEST)
    changed, _ = ours(model, REQUEST.replace(**change))
    assert relative(changed, base) > 1e-3


def test_the_instruction_matters(tiny: Folders):
    model = open_model(tiny())
    assert relative(ours(model, REQUEST.replace(chi=False))[0], ours(model, REQUEST)[0]) > 1e-4
    with_chi, without = (
        model.final_prompt(REQUEST.replace(prompt="A Cube ", chi=chi)) for chi in (True, False)
    )
    assert with_chi.endswith("User Prompt: a cube")
    assert without == "a cube"


def test_guidance_of_an_empty_interval_is_no_guidance(tiny: Folders):
    model = open_model(tiny())
    nowhere, _ = ours(model, REQUEST.replace(cfg_interval=(0.0, 0.0)))
    without, _ = ours(model, REQUEST.replace(guidance=1.0))
    assert relative(nowhere, without) < 1e-6


def test_stopping_between_steps(tiny: Folders):
    asked: list[bool] = []

    def stop() -> bool:
        asked.append(True)
        return len(asked) > 5

    events = list(open_model(tiny()).generate(REQUEST.replace(count=3), stop))
    last = events[-1]
    assert isinstance(last, Cancelled)
    assert last.finished == 1
    assert sum(isinstance(event, PictureDone) for event in events) == 1


def test_texts_are_remembered(tiny: Folders):
    model = open_model(tiny())
    list(model.generate(REQUEST))
    events = list(model.generate(REQUEST.replace(seed=1)))
    assert not any(isinstance(event, StageStarted) and event.stage in ("load", "text") for event in events)


def test_a_frugal_model_holds_one_part_and_draws_the_same(tiny: Folders):
    frugal = open_model(tiny())
    frugal.frugal = True
    held = []
    images = []
    for event in frugal.generate(REQUEST.replace(count=2)):
        held.append(sum(frugal.parts.is_loaded(name) for name in ("text", "transformer", "decoder")))
        images += [event.image] if isinstance(event, PictureDone) else []
    assert max(held) == 1
    assert held[-1] == 0
    wanted = open_model(tiny()).images(REQUEST.replace(count=2))
    assert [image.tobytes() for image in images] == [image.tobytes() for image in wanted]


def test_long_prompts_tell_how_many_tokens_were_cut(tiny: Folders):
    model = open_model(tiny())
    long = REQUEST.replace(prompt="sphere " * 400, negative="cone " * 400, steps=1, truncate=True)
    notes = [event.message for event in model.generate(long) if isinstance(event, Note)]
    cut = model.parts.text.count_cut(long.prompt, instruction_of(make_plan(model.spec, long)), lowercase=True)
    assert cut > 50
    assert [note.split(" is too long")[0] for note in notes] == ["the prompt", "the negative prompt"]
    assert f"its last {cut} tokens were cut, 300 are read" in notes[0]


def test_a_long_prompt_is_refused_before_anything_is_drawn(tiny: Folders):
    with pytest.raises(
        RequestError, match=r"the prompt is too long: its last \d+ tokens would be cut, 300 are read"
    ):
        list(open_model(tiny()).generate(REQUEST.replace(prompt="sphere " * 400)))


def test_a_prompt_that_was_cut_before_is_refused_where_no_cut_is_allowed(tiny: Folders):
    model = open_model(tiny())
    long = REQUEST.replace(prompt="sphere " * 400, steps=1)
    list(model.generate(long.replace(truncate=True)))
    with pytest.raises(RequestError, match="the prompt is too long"):
        list(model.generate(long))


def test_a_negative_prompt_without_guidance_is_remarked(tiny: Folders):
    events = open_model(tiny()).generate(REQUEST.replace(negative="fog", guidance=1.0))
    assert any(isinstance(event, Note) and "no effect" in event.message for event in events)


@pytest.mark.parametrize(
    ("part", "layer", "words"),
    [
        ("transformer", "blocks.1.ffn.project", "denoise step 1, layer blocks.1.ffn.project"),
        ("transformer", "blocks.1.cross.kv", "denoise step 1, layer blocks.1.cross.kv"),
        ("autoencoder", "decoder.stages.2.blocks.0.conv1", "decode, layer decoder.stages.2.blocks.0.conv1"),
    ],
)
def test_broken_numbers_name_stage_and_layer(tiny: Folders, part: str, layer: str, words: str):
    model = open_model(tiny(), fast="off")
    with torch.no_grad():
        unwrapped(getattr(model.parts, part)).get_submodule(layer).weight.fill_(float("nan"))
    with pytest.raises(NumericsError, match=words.replace(".", r"\.")):
        model.images(REQUEST)


def test_broken_numbers_of_a_packed_model_name_their_layer(tiny: Folders):
    model = open_model(tiny())
    with torch.no_grad():
        unwrapped(model.parts.transformer).get_submodule("blocks.1.attention.out").bias.fill_(float("nan"))
    with pytest.raises(NumericsError, match=r"denoise step 1, layer blocks\.1\.attention\.out"):
        model.images(REQUEST)


def test_the_text_is_read_once_per_picture_and_without_padding(tiny: Folders):
    model, lengths = open_model(tiny()), []
    unwrapped(model.parts.transformer).text.register_forward_hook(
        lambda _, args, out: lengths.append(out.shape[:2])
    )
    model.images(REQUEST.replace(count=2, steps=4))
    tokens = int(model.parts.text.encode([REQUEST.prompt], lowercase=True).mask.sum())
    assert lengths == [(2, tokens)] * 2
    lengths.clear()
    model.images(REQUEST.replace(steps=4, cfg_interval=(0.2, 0.8)))
    assert sorted(lengths) == [(1, tokens), (2, tokens)]


def test_half_precision_draws_nearly_the_same(tiny: Folders):
    wanted, _ = ours(open_model(tiny()), REQUEST)
    for dtype, bound in (("bf16", 0.1), ("fp16", 0.02)):
        model = open_model(tiny(), dtype)
        latent, _ = ours(model, REQUEST)
        assert latent.dtype == torch.float32
        assert relative(latent, wanted) < bound
    assert model.parts.dtype("transformer") == torch.float16
    assert {model.parts.dtype("text"), model.parts.dtype("decoder")} == {torch.float32}


def test_the_official_dialect(tiny: Folders):
    """The null branch has the states of padding seen through the prompt's mask: computed here by hand."""
    folder = tiny(Recipe(seed=9), dialect="official")
    pipeline = open_diffusers("SanaPipeline", folder)
    positive, mask, _, _ = pipeline.encode_prompt(REQUEST.prompt, True, complex_human_instruction=None)
    empty = pipeline.tokenizer("", padding="max_length", max_length=300, return_tensors="pt")
    null = pipeline.text_encoder(**empty)[0]
    request = REQUEST.replace(chi=False)
    options = {
        "prompt": None,
        "negative_prompt": None,
        "prompt_embeds": positive,
        "negative_prompt_embeds": null,
    }
    masks = {"prompt_attention_mask": mask, "negative_prompt_attention_mask": mask}
    wanted = theirs(pipeline, request, **options, **masks)
    found = ours(open_model(folder), request)
    assert relative(found[0], wanted[0]) < 1e-4
    own = ours(open_model(tiny(Recipe(seed=9))), request)
    assert relative(own[0], wanted[0]) > 1e-4


def test_large_pictures_are_decoded_in_tiles(tiny: Folders, monkeypatch: pytest.MonkeyPatch):
    model = open_model(tiny())
    latent = torch.randn(1, 8, 40, 36, generator=torch.Generator().manual_seed(1))
    whole = decode(model.parts.autoencoder, latent, Size(1152, 1280))
    monkeypatch.setattr(memory, "TILE_ABOVE", 1024 * 1024)
    tiled = decode(model.parts.autoencoder, latent, Size(1152, 1280))
    assert tiled.shape == (1, 3, 1280, 1152)
    difference = float((tiled - whole).abs().mean() / whole.abs().mean())
    assert 0 < difference < 0.2


def test_a_gpu_without_memory_decodes_in_tiles(tiny: Folders, monkeypatch: pytest.MonkeyPatch):
    autoencoder = open_model(tiny()).parts.autoencoder
    real = autoencoder.decode

    def small_only(latent: torch.Tensor) -> torch.Tensor:
        if latent.shape[-1] > 16:
            raise torch.OutOfMemoryError
        return real(latent)

    monkeypatch.setattr(autoencoder, "decode", small_only)
    pixels = decode(autoencoder, torch.randn(1, 8, 20, 20), Size(640, 640))
    assert pixels.shape == (1, 3, 640, 640)


def test_fitting_never_loses_a_pixel():
    """The sizes at which int(size * ratio) is one short: there diffusers returns a picture one pixel wide."""
    short = 0
    for height in range(256, 2049, 32):
        for width in range(256, 2049, 32):
            drawn_height, drawn_width = nearest_bucket(1024, height, width)
            ratio = max(height / drawn_height, width / drawn_width)
            short += int(drawn_height * ratio) < height or int(drawn_width * ratio) < width
    assert short > 0
    pixels = torch.rand(1, 3, 512, 1856)
    assert fit(pixels, 944, 256).shape == (1, 3, 256, 944)


def test_fitting_is_what_diffusers_does_elsewhere():
    from diffusers.image_processor import PixArtImageProcessor

    pixels = torch.randn(1, 3, 96, 128)
    for width, height in ((100, 90), (64, 64), (128, 32), (200, 160)):
        wanted = PixArtImageProcessor.resize_and_crop_tensor(pixels, width, height)
        assert torch.equal(fit(pixels, width, height), wanted)


def test_pixels_are_rounded_to_the_nearest_level():
    values = torch.tensor([-1.5, -1.0, 0.0, 0.5 / 127.5 - 1, 0.51 / 127.5 - 1, 1.0, 2.0, 0.0])
    image = to_image(values.expand(1, 3, 1, 8))
    assert list(image.getchannel(0).tobytes()) == [0, 0, 128, 0, 1, 255, 255, 128]


@pytest.mark.parametrize(("depth", "blocks"), [(28, (14,)), (20, (8,)), (3, (1,)), (1, (0,))])
def test_default_blocks_of_perturbed_attention(tiny: Folders, depth: int, blocks: tuple[int, ...]):
    spec = open_model(tiny()).spec
    spec = replace(spec, transformer=replace(spec.transformer, depth=depth))
    assert make_plan(spec, REQUEST).pag_blocks == blocks
    assert make_plan(spec, REQUEST.replace(pag_blocks=(0,))).pag_blocks == (0,)


def test_sprint_models_draw_with_other_solvers_too(tiny: Folders):
    for recipe, solver in ((Recipe(sprint=True), "dpm2"), (Recipe(sprint=True), "euler"), (Recipe(), "scm")):
        latent, _ = ours(open_model(tiny(recipe)), REQUEST.replace(solver=solver))
        assert bool(torch.isfinite(latent).all())


def test_bad_models_and_sizes_are_refused_at_once(tiny: Folders, tmp_path):
    with pytest.raises(ModelNotFoundError):
        load("no-such-model")
    with pytest.raises(ConfigError):
        load(tmp_path)
    with pytest.raises(RequestError):
        load(tiny(), "cpu", "int7")
    with pytest.raises(RequestError):
        load(tiny(), "warp")
    weights = tiny(Recipe(seed=77)) / "transformer" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(WeightsError):
        load(tiny(Recipe(seed=77)), "cpu", "fp32").images(REQUEST)


def test_memory_that_cannot_suffice_is_told_before_anything_is_loaded(
    tiny: Folders, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("sanakit.pipeline.memory.available_bytes", lambda device: 1000)
    model = open_model(tiny())
    with pytest.raises(
        RequestError, match=r"(text|denoise|decode) needs about .* GB of memory, 0.0 GB are free"
    ):
        model.generate(REQUEST)
    assert not model.parts.is_loaded("text")


def test_memory_that_may_not_suffice_is_remarked_once(tiny: Folders, monkeypatch: pytest.MonkeyPatch):
    model = open_model(tiny())
    largest = max(estimate(Shapes.of(model.spec), 64, 64, torch.float32), key=lambda stage: stage.total)
    monkeypatch.setattr("sanakit.pipeline.memory.available_bytes", lambda device: largest.total - 1)
    notes = [event.message for event in model.generate(REQUEST) if isinstance(event, Note)]
    assert any("it may fail" in note for note in notes)
    assert model.frugal
    assert not [event for event in model.generate(REQUEST) if isinstance(event, Note)]


def test_memory_is_checked_for_every_request(tiny: Folders, monkeypatch: pytest.MonkeyPatch):
    model = open_model(tiny())
    model.images(REQUEST)
    assert not model.frugal
    monkeypatch.setattr("sanakit.pipeline.memory.available_bytes", lambda device: 4_000_000)
    model.generate(REQUEST)
    with pytest.raises(RequestError, match=r"needs about .* GB of memory"):
        model.generate(REQUEST.replace(width=2048, height=2048))


def test_a_second_request_that_fits_only_stage_by_stage_frees_the_parts(
    tiny: Folders, monkeypatch: pytest.MonkeyPatch
):
    model = open_model(tiny())
    model.images(REQUEST)
    monkeypatch.setattr("sanakit.pipeline.memory.fits_together", lambda need, room: False)
    held = []
    for _ in model.generate(REQUEST):
        held.append(sum(model.parts.is_loaded(name) for name in ("text", "transformer", "decoder")))
    assert max(held) == 1
