"""Pictures under control: as diffusers draws them, several at once, for a part of the steps, refused in words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from sanakit.base.errors import ConfigError, ModelNotFoundError, PictureError, RequestError
from sanakit.pipeline import ImageRequest, Model, Record, denoise, encode_prompt, make_plan, write_picture
from sanakit.pipeline.control import Control
from sanakit.pipeline.encoder import encode
from sanakit.pipeline.events import StageStarted
from sanakit.pipeline.memory import estimate
from sanakit.pipeline.png import read_picture
from sanakit.pipeline.shapes import Shapes, control_parameters
from sanakit.pipeline.steering import LoadedControl, control_pixels
from sanakit.transformer import ControlConfig, ControlNet, SanaTransformer, copy_base
from sanakit.weights import load_transformer, read_model_spec, save_control
from tests.oracles.bounds import within
from tests.oracles.tiny import Folders, Recipe
from tests.pipeline.drawing import CPU, open_diffusers, open_model, theirs

RECIPES = {
    "sana": Recipe(depth=4),
    "positions": Recipe(depth=4, position_scale=2.0, sample_size=4, seed=3),
    "qk-norm": Recipe(depth=4, qk_norm=True, seed=1),
    "sprint": Recipe(depth=4, sprint=True, seed=2),
}


def shaken(net: ControlNet) -> ControlNet:
    torch.manual_seed(5)
    with torch.no_grad():
        for weight in net.parameters():
            weight.add_(torch.randn_like(weight) * 0.15)
    return net


class Nets:
    """A ControlNet for each model, written once: copies of its blocks, shaken."""

    def __init__(self, root: Path, tiny: Folders) -> None:
        self.root, self.tiny = root, tiny

    def __call__(self, name: str = "sana", copies: int = 3) -> tuple[Path, Path]:
        """(model, ControlNet)."""
        model, folder = self.tiny(RECIPES[name]), self.root / f"{name}-{copies}"
        if not folder.exists():
            spec = read_model_spec(model)
            base = SanaTransformer(spec.transformer)
            load_transformer(base, spec.transformer, spec.transformer_source, dtype=torch.float32)
            net = shaken(copy_base(base, copies))
            save_control(folder, net.control, net)
        return model, folder


@pytest.fixture(scope="module")
def nets(tiny: Folders, tmp_path_factory: pytest.TempPathFactory) -> Nets:
    return Nets(tmp_path_factory.mktemp("nets"), tiny)


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """96 x 64 pixels of noise."""
    path = tmp_path_factory.mktemp("pictures") / "edges.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)).save(path)
    return path


def ask(*controls: object, **fields: Any) -> ImageRequest:
    plain = {
        "prompt": "A large RED sphere",
        "width": 96,
        "height": 64,
        "steps": 4,
        "seed": 3,
        "guidance": 4.5,
    }
    return ImageRequest(**{**plain, "controls": controls, **fields})


def latent(model: Model, request: ImageRequest) -> Tensor:
    """The latent [1, C, h, w] of a request."""
    plan = make_plan(model.spec, request)
    prompt = encode_prompt(model.parts.text, model.spec, plan)
    loaded = [
        LoadedControl(
            planned=each, network=model.parts.control(each.spec),
            latent=encode(model.parts.encoder, control_pixels(each.control, plan.drawn)),
        )
        for each in plan.controls
    ]  # fmt: skip
    states = denoise(model.parts.transformer, prompt, plan, request.seed, CPU, controls=loaded)
    return list(states)[-1].x


@pytest.mark.parametrize("name", ["sana", "positions"])
@pytest.mark.parametrize("guidance", [4.5, 1.0])
def test_latents_are_those_of_diffusers(nets: Nets, picture: Path, name: str, guidance: float) -> None:
    import diffusers

    folder, net = nets(name)
    plain = open_diffusers("SanaPipeline", folder)
    controlnet = diffusers.SanaControlNetModel.from_pretrained(net, torch_dtype=torch.float32)
    pipeline = diffusers.SanaControlNetPipeline(**plain.components, controlnet=controlnet)
    pipeline.set_progress_bar_config(disable=True)
    request = ask(Control(network=net, picture=picture, scale=0.8), guidance=guidance)
    wanted = theirs(pipeline, request, control_image=Image.open(picture), controlnet_conditioning_scale=0.8)[
        0
    ]
    model = open_model(folder)
    found = latent(model, request)
    within("SanaControlNetPipeline, latents", found, wanted, 1e-4)
    assert not torch.allclose(found, latent(model, ask(guidance=guidance)), atol=1e-2)


@pytest.mark.parametrize("name", ["qk-norm", "sprint"])
def test_newer_models_are_steered_too(nets: Nets, picture: Path, name: str) -> None:
    folder, net = nets(name)
    model = open_model(folder)
    steered, plain = latent(model, ask(Control(network=net, picture=picture))), latent(model, ask())
    assert torch.isfinite(steered).all() and not torch.allclose(steered, plain, atol=1e-2)


def test_a_control_net_of_a_flow_model_reads_its_own_times_beside_a_sprint_model(
    nets: Nets, picture: Path
) -> None:
    _, net = nets("qk-norm")
    folder, own = nets("sprint")
    spec = read_model_spec(folder)
    times = [
        make_plan(spec, ask(Control(network=each, picture=picture), steps=2)).controls[0].clock(0.5, 0)
        for each in (net, own)
    ]
    assert times == [500.0, 0.5]
    assert torch.isfinite(
        latent(open_model(folder), ask(Control(network=net, picture=picture), steps=2))
    ).all()


def test_a_control_net_runs_in_the_form_of_the_engine(nets: Nets, picture: Path) -> None:
    folder, net = nets()
    request = ask(Control(network=net, picture=picture))
    off, auto = open_model(folder, fast="off"), open_model(folder)
    within("control, packed and plain", latent(auto, request), latent(off, request), 1e-4)
    spec = make_plan(off.spec, request).controls[0].spec
    assert not isinstance(off.parts.control(spec), ControlNet)  # inside a runner that keeps Triton out


def test_two_controls_add_up_and_a_scale_of_0_is_none(nets: Nets, picture: Path) -> None:
    folder, net = nets()
    model = open_model(folder)

    def drawn(*scales: float) -> Tensor:
        return latent(model, ask(*[Control(network=net, picture=picture, scale=scale) for scale in scales]))

    within("two controls", drawn(0.25, 0.5), drawn(0.75), 1e-5)
    assert torch.equal(drawn(0.0), drawn())
    _, other = nets(copies=1)
    both = ask(Control(network=net, picture=picture), Control(network=other, picture=picture))
    assert not torch.allclose(latent(model, both), drawn(1.0), atol=1e-3)


@pytest.mark.parametrize(
    ("start", "end", "count", "steps"),
    [
        (0, 1, 4, [0, 1, 2, 3]),
        (0, 0.6, 5, [0, 1, 2]),
        (0.5, 1, 4, [2, 3]),
        (0, 0.5, 2, [0]),
        (0.4, 0.6, 2, []),
    ],
)
def test_the_steps_between_start_and_end(
    nets: Nets, picture: Path, start: float, end: float, count: int, steps: list[int]
) -> None:
    folder, net = nets()
    control = Control(network=net, picture=picture, start=start, end=end)
    assert list(control.steps(count)) == steps
    plan = make_plan(read_model_spec(folder), ask(control, steps=count))
    assert [note for note in plan.notes if "has no effect" in note] == (
        []
        if steps
        else ["the control edges.png has no effect: none of 2 steps lies between start 0.4 and end 0.6."]
    )


def test_a_part_of_the_steps_is_controlled_and_the_rest_is_not(nets: Nets, picture: Path) -> None:
    folder, net = nets()
    model = open_model(folder)
    asked: list[int] = []
    real = model.parts.control(
        make_plan(model.spec, ask(Control(network=net, picture=picture))).controls[0].spec
    )
    real.register_forward_hook(lambda *_: asked.append(1))
    late = latent(model, ask(Control(network=net, picture=picture, start=0.5)))
    assert len(asked) == 2
    assert not torch.allclose(late, latent(model, ask(Control(network=net, picture=picture))), atol=1e-3)


def test_pictures_of_other_shapes_are_cut_laid_on_black_or_stretched(nets: Nets, tmp_path: Path) -> None:
    _, net = nets()
    Image.new("RGBA", (32, 64), (255, 255, 255, 255)).save(tmp_path / "tall.png")
    columns = {}
    for fit in ("crop", "pad", "resize"):
        made = Control(network=net, picture=tmp_path / "tall.png", fit=fit).fitted(64, 64)
        assert made.size == (64, 64) and made.mode == "RGB"
        columns[fit] = int((np.asarray(made)[32, :, 0] > 250).sum())
    assert columns == {"crop": 64, "pad": 32, "resize": 64}
    Image.new("RGBA", (64, 64), (255, 255, 255, 0)).save(tmp_path / "clear.png")
    assert not np.asarray(Control(network=net, picture=tmp_path / "clear.png").fitted(64, 64)).any()


def test_a_model_draws_under_control_frees_what_is_not_asked_for_and_tells_of_it(
    nets: Nets, picture: Path
) -> None:
    folder, net = nets()
    model = open_model(folder)
    request = ask(f"{net}:{picture}:scale=0.5", steps=2, count=2)
    stages = [event.stage for event in model.generate(request) if isinstance(event, StageStarted)]
    assert stages.count("encode") == 1 and stages.count("load") == 5
    plain = [np.asarray(image) for image in model.images(ask(steps=2, count=2))]
    steered = [np.asarray(image) for image in model.images(request)]
    assert all((one != other).any() for one, other in zip(plain, steered, strict=True))
    model.images(ask(steps=2))
    spec = make_plan(model.spec, request).controls[0].spec
    assert not model.parts.has_control(spec)


def test_the_record_names_net_and_picture_and_asks_for_them(
    nets: Nets, picture: Path, tmp_path: Path
) -> None:
    folder, net = nets()
    request = ask(f"{net}:{picture}:scale=0.5,end=0.75")
    write_picture(tmp_path / "x.png", Image.new("RGB", (96, 64)), Record(request=request, made={}))
    found = read_picture(tmp_path / "x.png").request
    assert found == request
    (control,) = json.loads(json.dumps(request.to_json()))["controls"]
    assert control["network"]["name"] == net.name and control["picture"]["name"] == "edges.png"
    assert (control["scale"], control["start"], control["end"], control["fit"]) == (0.5, 0.0, 0.75, "crop")
    with pytest.raises(RequestError, match=f"made with the file '{net.name}' .* give that file as --control"):
        make_plan(read_model_spec(folder), found)
    assert "controls" not in ask().to_json()


def test_a_control_net_of_another_content_has_another_hash(nets: Nets, picture: Path) -> None:
    _, one = nets()
    _, other = nets(copies=1)
    hashes = {Control(network=net, picture=picture).network.sha256 for net in (one, other, one)}
    assert len(hashes) == 2


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{net}", "a control is FOLDER:PICTURE, or .*, not"),
        ("{net}:{picture}:scale=high", "scale of a control is a number, not 'high'"),
        ("{net}:{picture}:scale=11", "scale of a control is a number from 0 to 10, not 11"),
        ("{net}:{picture}:weight=1", "has the settings scale, start, end and fit, each once, not 'weight=1'"),
        ("{net}:{picture}:start=0.5,end=0.5", "a control starts before it ends, not at 0.5 and 0.5"),
        ("{net}:{picture}:fit=tile", "fit of a control is crop, pad, resize, not 'tile'"),
        ("{net}:{picture}:scale=nan", "scale of a control is a number from 0 to 10"),
    ],
)
def test_what_is_no_control_is_told(nets: Nets, picture: Path, text: str, told: str) -> None:
    _, net = nets()
    with pytest.raises(RequestError, match=told):
        ask(text.format(net=net, picture=picture))


def test_what_is_not_there_or_does_not_fit_is_told_before_anything_is_loaded(
    nets: Nets, picture: Path, tmp_path: Path
) -> None:
    folder, net = nets()
    with pytest.raises(PictureError, match="nothing.png is not there"):
        ask(f"{net}:{tmp_path}/nothing.png")
    with pytest.raises(ModelNotFoundError, match="no ControlNet 'nowhere'"):
        ask(f"nowhere:{picture}")
    with pytest.raises(RequestError, match="controls are at most 8, not 9"):
        ask(*[f"{net}:{picture}"] * 9)
    wide = nets.tiny(Recipe(width=64, heads=4, cross_heads=2, depth=3, seed=2))
    with pytest.raises(
        ConfigError, match="has width 16, and the model has 64: take one that was made for this"
    ):
        make_plan(read_model_spec(wide), ask(f"{net}:{picture}"))
    shallow = nets.tiny(Recipe())
    with pytest.raises(ConfigError, match="steers blocks 1 to 3, and the model has 2"):
        open_model(shallow).generate(ask(f"{net}:{picture}"))


def test_names_with_colons_are_found_by_the_picture(nets: Nets, picture: Path, tmp_path: Path) -> None:
    _, net = nets()
    odd = tmp_path / "a:b.png"
    odd.write_bytes(picture.read_bytes())
    assert Control.parse(f"{net}:{odd}:end=0.5").picture.name == "a:b.png"


def test_the_plan_of_memory_counts_what_a_control_adds(nets: Nets) -> None:
    folder, _ = nets()
    spec = read_model_spec(folder)
    config = ControlConfig(backbone=spec.transformer.__class__(**{**vars(spec.transformer), "depth": 3}))
    parameters = sum(weight.numel() for weight in ControlNet(config).parameters())
    assert control_parameters(config) == parameters
    plain, steered = (
        {stage.stage: stage for stage in estimate(Shapes.of(spec), 64, 64, torch.float32, **more)}
        for more in ({}, {"encode": True, "controls": (config, config)})
    )
    assert steered["denoise"].weights - plain["denoise"].weights == 2 * 4 * parameters
    assert (
        steered["denoise"].work - plain["denoise"].work == 2 * 3 * 4 * 2 * 16 * 4
    )  # tokens, branches, width, bytes
    assert "encode" in steered and "encode" not in plain
