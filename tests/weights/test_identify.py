"""What a file of weights does not tell: asked for, read from beside it, or known; never guessed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sanakit.base.dialect import DIFFUSERS, OFFICIAL
from sanakit.base.errors import ConfigError, OutputError, RequestError
from sanakit.base.text_states import TextStates
from sanakit.transformer import PRESETS, SanaTransformer, TransformerConfig
from sanakit.weights import (
    Hints,
    file_to_file,
    file_to_folder,
    folder_to_file,
    load_transformer,
    open_weights,
    read_model_spec,
    save_transformer,
)
from sanakit.weights.formats import sana_pth
from sanakit.weights.identify import describe_file
from sanakit.weights.published import DESIGNS
from tests.oracles.tiny import Recipe, write_tiny
from tests.weights.keylists import Shapes, read_keys

SMALL = {"width": 64, "depth": 1, "heads": 2, "cross_heads": 4, "text_width": 8, "latent_channels": 4}


def shapes_of(config: TransformerConfig) -> Shapes:
    """Keys and shapes of an official file without the positional buffer."""
    with torch.device("meta"):
        state = sana_pth.table(config).to_theirs(SanaTransformer(config).state_dict())
    return {key: tuple(tensor.shape) for key, tensor in state.items()}


def velocity(config: TransformerConfig, folder: Path) -> torch.Tensor:
    """What the network in a component folder predicts for fixed input."""
    with torch.device("meta"):
        model = SanaTransformer(config)
    load_transformer(model, config, folder)
    generator = torch.Generator().manual_seed(3)
    latent = torch.randn(1, config.latent_channels, 6, 4, generator=generator)
    text = TextStates(
        torch.randn(1, 5, config.text_width, generator=generator), torch.ones(1, 5, dtype=torch.bool)
    )
    scale = torch.tensor([4.5]) if config.guidance_embed else None
    with torch.no_grad():
        return model(latent, torch.tensor([700.0]), text, guidance=scale)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".PTH"])
@pytest.mark.parametrize("name", DESIGNS)
def test_every_preset_comes_back_equal(name: str, suffix: str, tmp_path: Path) -> None:
    if suffix != ".pth" and name not in ("sana-1.6b-4k", "sprint-1.6b-1024-teacher"):
        pytest.skip("the suffix is no matter of the preset")
    config = replace(DESIGNS[name].transformer, **SMALL)
    save_transformer(tmp_path / "folder", config, SanaTransformer(config))
    folder_to_file(tmp_path / "folder", tmp_path / f"x{suffix}")
    assert {path.name for path in tmp_path.iterdir()} == {"folder", "x.json", f"x{suffix}"}
    file_to_folder(tmp_path / f"x{suffix}", tmp_path / "back")
    for file in ("config.json", "diffusion_pytorch_model.safetensors"):
        assert (tmp_path / "back" / file).read_bytes() == (tmp_path / "folder" / file).read_bytes()
    config = config.with_dialect(DIFFUSERS)
    assert torch.equal(velocity(config, tmp_path / "back"), velocity(config, tmp_path / "folder"))


@pytest.mark.parametrize(
    "name", ["sana-1.6b-4k", "sana-1.6b-512", "sana1.5-4.8b-1024", "sprint-0.6b-1024", "sana-0.6b-1024"]
)
def test_a_positional_buffer_tells_the_size(name: str) -> None:
    found, (note,) = describe_file(Path("x.pth"), read_keys(f"pth-{name}"), Hints())
    design = DESIGNS[name]
    assert (
        found.transformer == design.transformer.with_dialect(OFFICIAL) and found.schedule == design.schedule
    )
    assert note == f"x.pth is taken for {name}, whose tensors it has."


CANDIDATES = {
    "sana-1.6b-4k": "sana-1.6b-512, sana-1.6b-1024, sana-1.6b-2k and sana-1.6b-4k",
    "sana-0.6b-512": "sana-0.6b-512 and sana-0.6b-1024",
    "sana1.5-1.6b-1024": "sana1.5-1.6b-1024 and sprint-1.6b-1024-teacher",
}


@pytest.mark.parametrize("name", CANDIDATES)
def test_several_published_models_are_named_and_none_is_taken(name: str) -> None:
    shapes = shapes_of(PRESETS[name])
    with pytest.raises(ConfigError, match="--like-model NAME, or give --config FILE") as caught:
        describe_file(Path("x.pth"), shapes, Hints())
    assert CANDIDATES[name] in str(caught.value)
    for alike in CANDIDATES[name].replace(" and ", ", ").split(", "):
        found, notes = describe_file(Path("x.pth"), shapes, Hints(like_model=alike))
        assert found.transformer == DESIGNS[alike].transformer.with_dialect(OFFICIAL)
        assert found.schedule == DESIGNS[alike].schedule and notes == ()


def test_single_values_choose_among_the_published() -> None:
    shapes = shapes_of(PRESETS["sana-1.6b-4k"])
    found, _ = describe_file(Path("x.pth"), shapes, Hints(sample_size=128))
    assert found.transformer == PRESETS["sana-1.6b-4k"].with_dialect(OFFICIAL)
    assert found.schedule == DESIGNS["sana-1.6b-4k"].schedule
    told = {**shapes, "pos_embed": (1, 32 * 32, 2240)}
    with pytest.raises(ConfigError, match="sample_size 128 where pos_embed has 32"):
        describe_file(Path("x.pth"), told, Hints(like_model="sana-1.6b-4k"))
    with pytest.raises(RequestError, match="say the same thing"):
        Hints(like_model="sana-1.6b-4k", config=Path("x.json"))


def test_a_model_that_is_alike_lends_what_size_does_not_decide() -> None:
    config = TransformerConfig(**{**SMALL, "cross_heads": 2})
    shapes = shapes_of(config)
    found, (note,) = describe_file(Path("x.pth"), shapes, Hints(like_model="sana-1.6b-4k", cross_heads=2))
    wanted = replace(config, sample_size=128, position_scale=2.0)
    assert found.transformer == wanted.with_dialect(OFFICIAL)
    assert found.schedule is not None and found.schedule.shift == 6.0
    assert "differs from sana-1.6b-4k in size (latent_channels 4, width 64, depth 1)" in note
    with pytest.raises(ConfigError, match="its heads can't be told: give --config FILE"):
        describe_file(Path("x.pth"), shapes, Hints(like_model="sana-1.6b-4k"))
    with pytest.raises(ConfigError, match="it has qk_norm False, and sana1.5-1.6b-1024 has True"):
        describe_file(Path("x.pth"), shapes, Hints(like_model="sana1.5-1.6b-1024", cross_heads=2))
    with pytest.raises(ConfigError, match="'sana-1.6b-4kk' isn't a known model; there is sana-1.6b-4k"):
        describe_file(Path("x.pth"), shapes, Hints(like_model="sana-1.6b-4kk"))


def test_a_size_that_nothing_tells_is_asked_for() -> None:
    shapes = shapes_of(TransformerConfig(**SMALL))
    with pytest.raises(ConfigError, match="no published model, and nothing says its size"):
        describe_file(Path("x.pth"), shapes, Hints(cross_heads=4))
    found, (note,) = describe_file(Path("x.pth"), shapes, Hints(cross_heads=4, sample_size=64))
    assert found.transformer.position_scale == 1.0 and "positions / 1" in note
    assert found.schedule is None


@pytest.fixture(scope="module")
def folder4k(tmp_path_factory: pytest.TempPathFactory) -> Path:
    recipe = Recipe(sample_size=128, position_scale=2.0, flow_shift=6.0, width=32, heads=1)
    return write_tiny(tmp_path_factory.mktemp("4k"), recipe)


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("parts"), Recipe(flow_shift=3.0))


def test_a_file_keeps_the_schedule_of_its_folder(folder4k: Path, parts: Path, tmp_path: Path) -> None:
    path, whole = tmp_path / "x.pth", read_model_spec(folder4k)
    folder_to_file(folder4k, path)
    found = read_model_spec(path, parts=parts)
    assert found.schedule == whole.schedule and found.schedule.shift == 6.0
    assert (found.transformer, found.dialect, found.bins) == (whole.transformer, whole.dialect, whole.bins)
    assert found.notes == ()
    file_to_folder(path, tmp_path / "model", parts=parts)
    again = read_model_spec(tmp_path / "model")
    assert (again.schedule, again.transformer) == (whole.schedule, whole.transformer)
    (tmp_path / "x.json").unlink()
    with pytest.raises(ConfigError, match="--config FILE"):
        read_model_spec(path, parts=parts)
    for hints in (Hints(config=folder4k / "transformer/config.json"), Hints(config=folder4k / "transformer")):
        found = read_model_spec(path, parts=parts, hints=hints)
        assert found.transformer == whole.transformer.with_dialect(OFFICIAL)
        assert "nothing says the schedule" in found.notes[0] and "shift 3" in found.notes[0]
    assert read_model_spec(path, parts=parts, hints=Hints(like_model=str(folder4k))).schedule.shift == 6.0


def test_a_description_is_checked_against_the_tensors(folder4k: Path, parts: Path, tmp_path: Path) -> None:
    path, beside = tmp_path / "x.pth", tmp_path / "x.json"
    folder_to_file(folder4k, path)
    good = json.loads(beside.read_text())
    for change, words in (
        ({"num_layers": 3}, r"x\.json does not describe .*x\.pth: it has depth 3 where the tensors have 2"),
        ({"qk_norm": "rms_norm_across_heads"}, "qk_norm True where the tensors have False"),
        ({"mlp_ratio": 3.0}, r"ffn_ratio 3 where the tensors have 2\.5"),
        ({"sample_size": "x"}, "sample_size is"),
    ):
        beside.write_text(json.dumps({**good, "transformer": {**good["transformer"], **change}}))
        with pytest.raises(ConfigError, match=words):
            read_model_spec(path, parts=parts)
    for text, words in (
        ("{}", "does not describe a transformer"),
        ("[]", "JSON object"),
        ('{"_class_name": "SanakitCheckpoint"}', "transformer is null, but must be a JSON object"),
        ('{"_class_name": "SanakitCheckpoint", "more": 1}', "unknown field"),
    ):
        beside.write_text(text)
        with pytest.raises(ConfigError, match=words):
            read_model_spec(path, parts=parts)


def test_what_lies_at_the_name_of_the_description_is_not_lost(folder4k: Path, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('{"mine": 1}')
    with pytest.raises(OutputError, match="exists already: choose another name"):
        folder_to_file(folder4k, tmp_path / "x.pth", force=True)
    assert [file.name for file in tmp_path.iterdir()] == ["x.json"]
    folder_to_file(folder4k, tmp_path / "y.pth")
    folder_to_file(folder4k, tmp_path / "y.safetensors")  # the same description serves both
    other = tmp_path / "other"
    config = replace(read_model_spec(folder4k).transformer, position_scale=1.0)
    save_transformer(other, config, SanaTransformer(config))
    with pytest.raises(OutputError, match=r"y\.json"):
        folder_to_file(other, tmp_path / "y.pth", force=True)
    (tmp_path / "y.safetensors").unlink()
    folder_to_file(other, tmp_path / "y.pth", force=True)
    assert json.loads((tmp_path / "y.json").read_text())["transformer"]["interpolation_scale"] == 1.0


def test_equal_weights_make_equal_files(folder4k: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        folder_to_file(folder4k, tmp_path / f"{name}.pth")
        file_to_file(tmp_path / f"{name}.pth", tmp_path / f"{name}2.safetensors")
        file_to_folder(tmp_path / f"{name}2.safetensors", tmp_path / name)
    for one, other in (("a.pth", "b.pth"), ("a2.safetensors", "b2.safetensors"), ("a.json", "b2.json")):
        assert (tmp_path / one).read_bytes() == (tmp_path / other).read_bytes()
    first, last = open_weights(folder4k / "transformer"), open_weights(tmp_path / "b")
    assert all(torch.equal(first[key], last[key]) for key in first) and first.keys() == last.keys()
