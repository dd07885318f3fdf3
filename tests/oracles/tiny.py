"""Complete SANA folders at toy size, written by diffusers itself: random weights, all parts, a trained tokenizer.

The autoencoder is f32 (six stages), so sizes mean what they mean for published models; widths are 4 to 16.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

LINES = (
    "a large red metal sphere left of a small blue rubber cube on grass at sunset",
    "three green cones behind a yellow cylinder on sand at night, foggy and dark",
)
TEXT_WIDTH = 16


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What a tiny folder varies."""

    width: int = 16
    depth: int = 2
    heads: int = 2
    cross_heads: int = 2
    qk_norm: bool = False
    sprint: bool = False
    pag: bool = False
    sample_size: int = 32
    position_scale: float | None = None
    lite: bool = False
    flow_shift: float = 3.0
    solver_order: int = 2
    euler: bool = False
    seed: int = 0


def write_tiny(folder: Path, recipe: Recipe | None = None) -> Path:
    """A folder that `SanaPipeline`, `SanaPAGPipeline` or `SanaSprintPipeline` loads, by `save_pretrained`."""
    pipeline = build_tiny(recipe or Recipe())
    pipeline.save_pretrained(folder)
    return folder


def build_tiny(recipe: Recipe) -> Any:
    """The diffusers pipeline of a recipe, in evaluation mode."""
    import diffusers

    torch.manual_seed(recipe.seed)
    tokenizer = _tokenizer()
    parts: dict[str, Any] = {
        "tokenizer": tokenizer,
        "text_encoder": _text_encoder(len(tokenizer)),
        "transformer": _transformer(recipe),
        "vae": _autoencoder(recipe),
        "scheduler": _scheduler(recipe),
    }
    if recipe.sprint:
        return diffusers.SanaSprintPipeline(**parts)
    return diffusers.SanaPAGPipeline(**parts) if recipe.pag else diffusers.SanaPipeline(**parts)


def _tokenizer() -> Any:
    from sanakit.text import train_tokenizer

    return train_tokenizer(LINES, vocab_size=320)


def _text_encoder(vocab: int) -> Any:
    from transformers import Gemma2Config, Gemma2Model

    config = Gemma2Config(
        vocab_size=vocab, hidden_size=TEXT_WIDTH, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=8, query_pre_attn_scalar=8, pad_token_id=0, eos_token_id=1, bos_token_id=2,
    )  # fmt: skip
    return _shaken(Gemma2Model._from_config(config, attn_implementation="eager"))


def _transformer(recipe: Recipe) -> Any:
    from diffusers import SanaTransformer2DModel

    model = SanaTransformer2DModel(
        in_channels=8, out_channels=8, num_attention_heads=recipe.heads,
        attention_head_dim=recipe.width // recipe.heads, num_layers=recipe.depth,
        num_cross_attention_heads=recipe.cross_heads, cross_attention_head_dim=recipe.width // recipe.cross_heads,
        cross_attention_dim=recipe.width, caption_channels=TEXT_WIDTH, sample_size=recipe.sample_size,
        interpolation_scale=recipe.position_scale, guidance_embeds=recipe.sprint,
        qk_norm="rms_norm_across_heads" if recipe.qk_norm or recipe.sprint else None,
    )  # fmt: skip
    return _shaken(model)


def _autoencoder(recipe: Recipe) -> Any:
    from diffusers import AutoencoderDC

    kinds = ("ResBlock",) * 3 + ("EfficientViTBlock",) * 3
    scales = ((), (), (), (5,), (5,), (5,))
    model = AutoencoderDC(
        latent_channels=8, attention_head_dim=8, encoder_block_types=kinds,
        decoder_block_types="ResBlock" if recipe.lite else kinds,
        encoder_block_out_channels=(4, 8, 8, 16, 16, 16), decoder_block_out_channels=(4, 8, 8, 16, 16, 16),
        encoder_layers_per_block=(1,) * 6, decoder_layers_per_block=(0,) + (1,) * 5 if recipe.lite else (1,) * 6,
        encoder_qkv_multiscales=scales, decoder_qkv_multiscales=((),) * 6 if recipe.lite else scales,
        downsample_block_type="conv", upsample_block_type="pixel_shuffle" if recipe.lite else "interpolate",
        decoder_conv_act_fn="silu" if recipe.lite else "relu", scaling_factor=0.41407,
    )  # fmt: skip
    return _shaken(model)


def _scheduler(recipe: Recipe) -> Any:
    import diffusers

    if recipe.sprint:
        return diffusers.SCMScheduler()
    if recipe.euler:
        return diffusers.FlowMatchEulerDiscreteScheduler(shift=recipe.flow_shift)
    return diffusers.DPMSolverMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=recipe.flow_shift,
        solver_order=recipe.solver_order,
    )  # fmt: skip


def _shaken(model: Any) -> Any:
    """Moves every one- and zero-valued parameter off its start, so that a forgotten bias or norm is seen."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return model.eval()


class Folders:
    """Tiny folders by recipe, each written once; `bins` False adds the `sanakit.json` that turns binning off."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._written: dict[tuple[Recipe, bool, str], Path] = {}

    def __call__(
        self, recipe: Recipe | None = None, *, bins: bool = False, dialect: str = "diffusers"
    ) -> Path:
        """The folder of a recipe."""
        recipe = recipe or Recipe()
        key = (recipe, bins, dialect)
        if key not in self._written:
            folder = write_tiny(self.root / str(len(self._written)), recipe)
            (folder / "sanakit.json").write_text(json.dumps({"bins": bins, "dialect": dialect}))
            self._written[key] = folder
        return self._written[key]
