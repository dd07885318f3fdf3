"""LoRA against diffusers with peft: theirs draw the same here, ours draw the same there, at most 1e-5 relative."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from sanakit.adapt.lora import adapter_names, add_adapter, merge_adapters, set_weights
from sanakit.base.text_states import TextStates
from sanakit.transformer import SanaTransformer
from sanakit.weights import LoRA, load_transformer, read_lora, read_model_spec, write_lora
from tests.oracles.bounds import within
from tests.oracles.tiny import TEXT_WIDTH, Folders, Recipe
from tests.pipeline.drawing import open_diffusers

BOUND = 1e-5
RECIPES = {
    "base": Recipe(),
    "1.5": Recipe(qk_norm=True, seed=1),
    "Sprint": Recipe(sprint=True),
}
ATTENTION = ["to_q", "to_k", "to_v"]
EVERYTHING = [
    *ATTENTION,
    "to_out.0",
    "conv_inverted",
    "conv_point",
    "linear_1",
    "linear_2",
    "linear",
    "proj",
    "proj_out",
]


def latents() -> tuple[Tensor, Tensor, Tensor]:
    """Latent, time and text states of two samples."""
    generator = torch.Generator().manual_seed(5)
    text = torch.randn(2, 7, TEXT_WIDTH, generator=generator)
    return torch.randn(2, 8, 4, 6, generator=generator), torch.tensor([300.0, 900.0]), text


def theirs(transformer: Any, sprint: bool) -> Tensor:
    latent, time, text = latents()
    guidance = (
        {"guidance": torch.tensor([4.5, 4.5]) * transformer.config.guidance_embeds_scale} if sprint else {}
    )
    mask = torch.ones(2, 7)
    with torch.no_grad():
        return transformer(latent, text, time, encoder_attention_mask=mask, return_dict=False, **guidance)[0]


def ours(model: SanaTransformer) -> Tensor:
    latent, time, text = latents()
    guidance = torch.tensor([4.5, 4.5]) if model.config.guidance_embed else None
    with torch.no_grad():
        return model(latent, time, TextStates(text, torch.ones(2, 7, dtype=torch.bool)), guidance)


def open_ours(folder: Path) -> SanaTransformer:
    spec = read_model_spec(folder)
    with torch.device("meta"):
        model = SanaTransformer(spec.transformer)
    load_transformer(model, spec.transformer, spec.transformer_source)
    return model.eval().requires_grad_(False)


def random_lora(pipeline: Any, name: str, **config: Any) -> None:
    """Give the pipeline's transformer an adapter of peft with random weights."""
    from peft import LoraConfig

    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", message="Already found a `peft_config`"
        )  # peft, of a second adapter
        pipeline.transformer.add_adapter(LoraConfig(**config), adapter_name=name)
    torch.manual_seed(len(name))
    with torch.no_grad():
        for key, parameter in pipeline.transformer.named_parameters():
            if f".{name}." in key and "magnitude" not in key:
                parameter.copy_(torch.randn_like(parameter) * 0.1)
            elif f".{name}." in key:
                parameter.mul_(1 + 0.2 * torch.rand_like(parameter))


def save(pipeline: Any, name: str, folder: Path) -> Path:
    from peft.utils import get_peft_model_state_dict

    layers = get_peft_model_state_dict(pipeline.transformer, adapter_name=name)
    metadata = pipeline.transformer.peft_config[name].to_dict()
    pipeline.save_lora_weights(
        folder, transformer_lora_layers=layers, transformer_lora_adapter_metadata=metadata
    )
    return folder / "pytorch_lora_weights.safetensors"


CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "attention": ("base", {"r": 4, "lora_alpha": 8, "target_modules": ATTENTION}),
    "everything, rsLoRA": ("1.5", {"r": 4, "lora_alpha": 6, "target_modules": EVERYTHING, "use_rslora": True}),
    "Sprint": ("Sprint", {"r": 3, "lora_alpha": 3, "target_modules": EVERYTHING}),
    "other ranks": ("base", {
        "r": 4, "lora_alpha": 8, "target_modules": ATTENTION, "rank_pattern": {"attn1.to_q": 2},
        "alpha_pattern": {"to_k": 5},
    }),
    "DoRA": ("1.5", {"r": 4, "lora_alpha": 8, "target_modules": [*ATTENTION, "conv_inverted"], "use_dora": True}),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_lora_of_peft_draws_the_same_here(tiny: Folders, tmp_path: Path, case: str) -> None:
    kind, config = CASES[case]
    folder = tiny(RECIPES[kind])
    pipeline = open_diffusers("SanaSprintPipeline" if kind == "Sprint" else "SanaPipeline", folder)
    plain = theirs(pipeline.transformer, kind == "Sprint")
    random_lora(pipeline, "one", **config)
    wanted = theirs(pipeline.transformer, kind == "Sprint")
    assert (wanted - plain).abs().max() > 0.01 * plain.abs().max()
    found = read_lora(save(pipeline, "one", tmp_path))
    assert found.notes == ()
    model = open_ours(folder)
    within("LoRA, the base", ours(model), plain, BOUND)
    add_adapter(model, "one", found.layers)
    within("LoRA of peft, beside", ours(model), wanted, BOUND)
    merge_adapters(model)
    within("LoRA of peft, merged", ours(model), wanted, BOUND)


def test_several_at_once_with_weights(tiny: Folders, tmp_path: Path) -> None:
    pipeline, model = open_diffusers("SanaPipeline", tiny()), open_ours(tiny())
    random_lora(pipeline, "one", r=4, lora_alpha=8, target_modules=ATTENTION)
    random_lora(pipeline, "second", r=2, lora_alpha=2, target_modules=["to_q", "conv_point"])
    pipeline.set_adapters(["one", "second"], [0.7, -0.4])
    wanted = theirs(pipeline.transformer, False)
    for name in ("one", "second"):
        add_adapter(model, name, read_lora(save(pipeline, name, tmp_path / name)).layers)
    set_weights(model, {"one": 0.7, "second": -0.4})
    assert adapter_names(model) == ("one", "second")
    within("LoRA of peft, two with weights", ours(model), wanted, BOUND)


@pytest.mark.parametrize("case", CASES)
def test_ours_draws_the_same_in_diffusers(tiny: Folders, tmp_path: Path, case: str) -> None:
    kind, config = CASES[case]
    folder = tiny(RECIPES[kind])
    name = "SanaSprintPipeline" if kind == "Sprint" else "SanaPipeline"
    source = open_diffusers(name, folder)
    random_lora(source, "one", **config)
    lora = read_lora(save(source, "one", tmp_path))
    write_lora(tmp_path / "ours" / "x.safetensors", lora)
    model, pipeline = open_ours(folder), open_diffusers(name, folder)
    add_adapter(model, "one", lora.layers)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pipeline.load_lora_weights(tmp_path / "ours", weight_name="x.safetensors")
    within("LoRA of ours in diffusers", theirs(pipeline.transformer, kind == "Sprint"), ours(model), BOUND)


def test_a_lora_of_the_teacher_fits_its_student(tiny: Folders, tmp_path: Path) -> None:
    teacher = open_diffusers("SanaPipeline", tiny(RECIPES["1.5"]))
    random_lora(teacher, "one", r=2, lora_alpha=4, target_modules=[*ATTENTION, "linear_1"])
    lora = read_lora(save(teacher, "one", tmp_path))
    student = open_ours(tiny(RECIPES["Sprint"]))
    before = ours(student)
    add_adapter(student, "one", lora.layers)
    assert not torch.equal(ours(student), before)
    write_lora(tmp_path / "x.safetensors", LoRA(layers=lora.layers, sprint=True))
    pipeline = open_diffusers("SanaSprintPipeline", tiny(RECIPES["Sprint"]))
    pipeline.load_lora_weights(tmp_path, weight_name="x.safetensors")
    within(
        "LoRA of a teacher on Sprint in diffusers", theirs(pipeline.transformer, True), ours(student), BOUND
    )
