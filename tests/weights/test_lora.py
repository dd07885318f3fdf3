"""LoRA files: forms of every program, both ways, and one sentence for each that can't be read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor

from sanakit.base.errors import WeightsError
from sanakit.layers.lora import LowRank, change
from sanakit.weights import LoRA, is_lora, read_lora, write_lora, write_safetensors
from sanakit.weights.formats.lora_names import places
from sanakit.weights.formats.lora_peft import METADATA

WIDTH, HIDDEN = 8, 20


def low(
    outputs: int, inputs: int, groups: tuple[int, ...] = (0,), of: int = 1, rank: int = 2, **more: object
) -> LowRank:
    down, up = torch.randn(len(groups), rank, inputs), torch.randn(len(groups), outputs // of, rank)
    return LowRank(down=down, up=up, groups=groups, of=of, **{"scale": 0.5, **more})


def blocks(**more: object) -> dict[str, LowRank]:
    """Every layer of a block, as an adapter."""
    return {
        "blocks.1.attention.qkv": low(3 * WIDTH, WIDTH, (0, 1, 2), 3, **more),
        "blocks.1.attention.out": low(WIDTH, WIDTH, **more),
        "blocks.1.cross.q": low(WIDTH, WIDTH, **more),
        "blocks.1.cross.kv": low(2 * WIDTH, WIDTH, (0, 1), 2, **more),
        "blocks.1.cross.out": low(WIDTH, WIDTH, **more),
        "blocks.1.ffn.expand": low(2 * HIDDEN, WIDTH, **more),
        "blocks.1.ffn.project": low(WIDTH, HIDDEN, **more),
    }


def same(found: Mapping[str, LowRank], wanted: Mapping[str, LowRank]) -> None:
    assert set(found) == set(wanted)
    for name, one in wanted.items():
        other = found[name]
        assert (other.groups, other.of, other.scale, other.rank) == (
            one.groups,
            one.of,
            one.scale,
            one.rank,
        ), name
        assert torch.equal(other.down, one.down), name
        assert torch.equal(other.up, one.up), name
        assert (other.magnitude is None) == (one.magnitude is None)
        assert one.magnitude is None or torch.equal(other.magnitude, one.magnitude), name


@pytest.mark.parametrize("target", ["diffusers", "comfyui"])
def test_written_and_read_again_to_the_bit(tmp_path: Path, target: str) -> None:
    layers = blocks() | {
        "blocks.0.attention.qkv": low(3 * WIDTH, WIDTH, (0, 2), 3, rank=4),
        "patch": low(WIDTH, 4),
        "time.input": low(WIDTH, 256, rank=3),
        "modulation": low(6 * WIDTH, WIDTH, scale=1.25),
        "head.out": low(4, WIDTH),
    }
    if target == "comfyui":
        layers["blocks.0.ffn.depthwise"] = low(2 * HIDDEN, 9)
    write_lora(tmp_path / "x.safetensors", LoRA(layers=layers), target)
    found = read_lora(tmp_path / "x.safetensors")
    same(found.layers, layers)
    assert (found.depth, found.ranks, found.notes) == (2, (2, 3, 4), ())


@pytest.mark.parametrize("target", ["diffusers", "comfyui"])
def test_magnitudes_survive(tmp_path: Path, target: str) -> None:
    layers = {
        name: LowRank(
            down=one.down, up=one.up, groups=one.groups, of=one.of, magnitude=torch.rand(one.up.shape[:2])
        )
        for name, one in blocks().items()
    }
    write_lora(tmp_path / "x.safetensors", LoRA(layers=layers), target)
    found = read_lora(tmp_path / "x.safetensors").layers
    if target == "comfyui":  # one pair for q, k, v: the change is the same, its form isn't
        for name, one in layers.items():
            weight = torch.randn(one.outputs, one.inputs)
            assert torch.allclose(change(found[name], weight), change(one, weight), atol=1e-5)
    else:
        same(found, layers)


def test_lower_ranks_and_other_scales_of_one_layer(tmp_path: Path) -> None:
    prefix = "transformer.transformer_blocks.0.attn1"
    pairs = {"to_q": (2, 1.0), "to_k": (4, 8.0), "to_v": (3, 3.0)}
    tensors, wanted = {}, []
    for name, (rank, alpha) in pairs.items():
        down, up = torch.randn(rank, WIDTH), torch.randn(WIDTH, rank)
        tensors |= {f"{prefix}.{name}.lora_A.weight": down, f"{prefix}.{name}.lora_B.weight": up}
        wanted.append(alpha / rank * up @ down)
    fields = {"r": 4, "lora_alpha": 8, "alpha_pattern": {"to_q": 1, r"^transformer_blocks\.0\.attn1.to_v": 3}}
    path = tmp_path / "x.safetensors"
    write(path, tensors, {f"transformer.{name}": value for name, value in fields.items()})
    found = read_lora(path).layers["blocks.0.attention.qkv"]
    assert torch.allclose(change(found, torch.zeros(3 * WIDTH, WIDTH)), torch.cat(wanted), atol=1e-6)
    write_lora(tmp_path / "y.safetensors", LoRA(layers={"blocks.0.attention.qkv": found}))
    again = read_lora(tmp_path / "y.safetensors").layers
    same(again, {"blocks.0.attention.qkv": found})


def write(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, object] | None = None) -> Path:
    write_safetensors(path, tensors, metadata=None if metadata is None else {METADATA: json.dumps(metadata)})
    return path


NAMES = {
    "peft": ("base_model.model.", ".lora_A.weight", ".lora_B.weight"),
    "old diffusers": ("transformer.", "_lora.down.weight", "_lora.up.weight"),
    "older": ("", ".lora.down.weight", ".lora.up.weight"),
    "kohya": ("lora_unet_", ".lora_down.weight", ".lora_up.weight"),
    "OneTrainer": ("lora_transformer_", ".lora_down.weight", ".lora_up.weight"),
    "OneTrainer, dots": ("transformer.", ".lora_down.weight", ".lora_up.weight"),
    "LyCORIS": ("lycoris_", ".lora_down.weight", ".lora_up.weight"),
    "ComfyUI": ("diffusion_model.", ".lora_A.weight", ".lora_B.weight"),
}


@pytest.mark.parametrize("program", NAMES)
@pytest.mark.parametrize("name", ["transformer_blocks.11.attn2.to_out.0", "blocks.11.cross_attn.proj"])
def test_names_of_every_program(tmp_path: Path, program: str, name: str) -> None:
    prefix, *ends = NAMES[program]
    layer = prefix + (name.replace(".", "_") if prefix.endswith("_") else name)
    down, up, alpha = torch.randn(2, WIDTH), torch.randn(WIDTH, 2), "lora_up" in ends[1]
    tensors = {layer + ends[0]: down, layer + ends[1]: up}
    tensors |= {f"{layer}.alpha": torch.tensor(1.0)} if alpha else {}
    assert is_lora(tensors)
    found = read_lora(write(tmp_path / "x.safetensors", tensors)).layers
    same(found, {"blocks.11.cross.out": LowRank(down=down[None], up=up[None], scale=0.5 if alpha else 1.0)})


def test_every_published_layer_has_a_place_of_its_own() -> None:
    known = places(2)
    assert len({(place.layer, place.group) for place in known.values() if place.group is not None}) == 2 * 5
    assert {name for name, place in known.items() if place.sprint} == {
        f"time_embed.{part}_embedder.linear_{number}"
        for part in ("timestep", "guidance")
        for number in (1, 2)
    }
    assert len({name.replace(".", "_") for name in known}) == len(known)


def test_processors_held_the_layers_once(tmp_path: Path) -> None:
    prefix = "transformer.transformer_blocks.0.attn1.processor.to_out_lora"
    tensors = {f"{prefix}.down.weight": torch.ones(2, WIDTH), f"{prefix}.up.weight": torch.ones(WIDTH, 2)}
    assert set(read_lora(write(tmp_path / "x.safetensors", tensors)).layers) == {"blocks.0.attention.out"}


def test_rank_stabilised_scales_and_new_fields(tmp_path: Path) -> None:
    name = "transformer.transformer_blocks.0.attn2.to_q"
    tensors = {f"{name}.lora_A.weight": torch.ones(4, WIDTH), f"{name}.lora_B.weight": torch.ones(WIDTH, 4)}
    fields = {
        "transformer.r": 4,
        "transformer.lora_alpha": 6,
        "transformer.use_rslora": True,
        "transformer.sparkle": 3,
    }
    found = read_lora(write(tmp_path / "x.safetensors", tensors, fields))
    assert found.layers["blocks.0.cross.q"].scale == 3.0
    assert found.notes == (
        f"{tmp_path / 'x.safetensors'}: sparkle of its {METADATA} not known here, and passed over.",
    )


def test_a_file_of_peft_itself(tmp_path: Path) -> None:
    name = "base_model.model.transformer_blocks.0.attn2.to_q"
    tensors = {f"{name}.lora_A.weight": torch.ones(4, WIDTH), f"{name}.lora_B.weight": torch.ones(WIDTH, 4)}
    write(tmp_path / "adapter_model.safetensors", tensors)
    (tmp_path / "adapter_config.json").write_text('{"r": 4, "lora_alpha": 2, "target_modules": ["to_q"]}')
    assert read_lora(tmp_path / "adapter_model.safetensors").layers["blocks.0.cross.q"].scale == 0.5


def test_text_encoders_are_passed_over_with_a_note(tmp_path: Path) -> None:
    pair = {"lora_A.weight": torch.ones(2, WIDTH), "lora_B.weight": torch.ones(WIDTH, 2)}
    text = {f"text_encoder.layers.0.q.{end}": tensor for end, tensor in pair.items()}
    path = tmp_path / "x.safetensors"
    found = read_lora(
        write(
            path,
            text | {f"transformer.transformer_blocks.0.attn2.to_q.{end}": one for end, one in pair.items()},
        )
    )
    assert set(found.layers) == {"blocks.0.cross.q"}
    assert "2 tensors of a text encoder are passed over" in found.notes[0]
    with pytest.raises(WeightsError, match="a LoRA of a SANA transformer: it has no tensors for one"):
        read_lora(write(path, text))


Q = "transformer.transformer_blocks.0.attn1.to_q"
PAIR = {f"{Q}.lora_A.weight": torch.ones(2, WIDTH), f"{Q}.lora_B.weight": torch.ones(WIDTH, 2)}


@pytest.mark.parametrize(
    ("tensors", "metadata", "words"),
    [
        ({"a.weight": torch.ones(2)}, None, "isn't a LoRA of a SANA transformer: it has a.weight"),
        ({"transformer.single_blocks.0.x.lora_A.weight": torch.ones(2, 2)}, None, "isn't a LoRA of a SANA transformer"),
        (PAIR | {"transformer.other.lora_A.weight": torch.ones(2, 2)}, None, "changes something that isn't a layer"),
        ({f"{Q}.lora_A.weight": torch.ones(2, WIDTH)}, None, "has down without its up"),
        (PAIR | {f"{Q}.lora_B.weight": torch.ones(WIDTH, 3)}, None, "aren't a pair of a LoRA"),
        (PAIR | {f"{Q}.lora_A.weight": torch.full((2, WIDTH), torch.nan)}, None, "down holds NaN or Inf"),
        (PAIR | {f"{Q}.lora_A.weight": torch.ones(2, WIDTH).int()}, None, "should be of floating-point numbers"),
        (PAIR | {f"{Q}.alpha": torch.ones(2)}, None, r"alpha \[2\] float32 should be one number"),
        (PAIR | {f"{Q}.dora_scale": torch.ones(1, WIDTH)}, None, "are not one for each of 8 outputs"),
        (PAIR | {f"{Q}.lora_B.bias": torch.ones(WIDTH)}, None, "holds a LoRA with biases"),
        ({"lycoris_transformer_blocks_0_attn1_to_q.lokr_w1": torch.ones(2, 2)}, None, "holds a LoKr"),
        (PAIR | {f"{Q}.lora.down.weight": torch.ones(2, WIDTH)}, None, "the same tensor"),
        (PAIR, {"transformer.r": 0}, "r of its lora_adapter_metadata is 0, not a number above 0"),
        (PAIR, {"transformer.lora_alpha": "8"}, "lora_alpha of its lora_adapter_metadata is '8'"),
        (PAIR, {"transformer.alpha_pattern": {"(a+)+$": 3}}, "only names of layers are read here"),
        (PAIR, {"transformer.fan_in_fan_out": True}, "was made with fan_in_fan_out True, which is not read here"),
        (PAIR, ["transformer.r"], "are not a JSON object"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_what_is_no_lora_of_sana(
    tmp_path: Path, tensors: dict[str, Tensor], metadata: object, words: str
) -> None:
    with pytest.raises(WeightsError, match=words):
        read_lora(write(tmp_path / "x.safetensors", tensors, metadata))


def test_a_dense_change_of_a_depthwise_convolution(tmp_path: Path) -> None:
    name = "transformer.transformer_blocks.0.ff.conv_depth"
    tensors = {
        f"{name}.lora_A.weight": torch.ones(40, 40, 3, 3), f"{name}.lora_B.weight": torch.ones(40, 40, 1, 1)
    }  # fmt: skip
    with pytest.raises(WeightsError, match="changed by a dense convolution"):
        read_lora(write(tmp_path / "x.safetensors", tensors))
    with pytest.raises(WeightsError, match="diffusers has no LoRA of those"):
        write_lora(tmp_path / "y.safetensors", LoRA(layers={"blocks.0.ffn.depthwise": low(40, 9)}))


def test_truncated(tmp_path: Path) -> None:
    path = write(tmp_path / "x.safetensors", PAIR)
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(WeightsError, match="should hold"):
        read_lora(path)
