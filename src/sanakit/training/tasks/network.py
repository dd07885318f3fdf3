"""The transformer that a run trains: its configuration, and the weights that it begins with.

Those of the base model, fresh ones, or the base model's with more blocks (SANA-1.5, arXiv 2501.18427, section 3.1).
"""

from __future__ import annotations

from dataclasses import replace

import torch

from sanakit.adapt.depth import DepthPlan, plan_growth, reshape_network
from sanakit.base.errors import ConfigError, RequestError
from sanakit.training.config import TrainConfig
from sanakit.training.model_settings import ModelConfig
from sanakit.training.schema import typed_values
from sanakit.transformer import PRESETS, SanaTransformer, TransformerConfig, initialise
from sanakit.weights import ModelSpec, load_transformer


def network_config(wanted: ModelConfig, spec: ModelSpec) -> TransformerConfig:
    """Return the network's configuration. Raises ConfigError for unknown names and what doesn't fit the base model."""
    if wanted.start == "base" and (wanted.preset or wanted.changes):
        raise ConfigError(
            "model: weights of the base model have its shape; for another one say model.start=scratch, or "
            "model.start=grow with a larger depth"
        )
    if wanted.start == "grow":
        return _grown_config(wanted, spec.transformer)
    if wanted.preset is not None and wanted.preset not in PRESETS:
        raise ConfigError(f"model.preset: {wanted.preset!r} is not one of {', '.join(PRESETS)}")
    base = spec.transformer
    start = base if wanted.preset is None else PRESETS[wanted.preset]
    fitting = replace(start, text_width=base.text_width, latent_channels=base.latent_channels)
    return replace(fitting, **typed_values(TransformerConfig, wanted.changes, "model.changes."))


def _grown_config(wanted: ModelConfig, base: TransformerConfig) -> TransformerConfig:
    """Add blocks to the base model's, and norms of queries and keys if they are asked for. Raises ConfigError."""
    other = sorted({*wanted.changes} - {"depth", "qk_norm"})
    if wanted.preset or other or "depth" not in wanted.changes:
        what = "model.preset" if wanted.preset else f"model.changes.{other[0]}" if other else None
        raise ConfigError(
            "model.start=grow needs model.changes.depth, the number of blocks" if what is None
            else f"{what}: a network that grows keeps its shape but for model.changes.depth and qk_norm"
        )  # fmt: skip
    grown = replace(base, **typed_values(TransformerConfig, wanted.changes, "model.changes."))
    if base.qk_norm and not grown.qk_norm:
        raise ConfigError("model.changes.qk_norm: the base model's norms can't be left out")
    _growth_plan(wanted, base.depth, grown.depth)
    return grown


def _growth_plan(wanted: ModelConfig, old: int, depth: int) -> DepthPlan:
    try:
        return plan_growth(old, depth, drop=wanted.growth.drop, how=wanted.growth.how)
    except RequestError as error:
        raise ConfigError(f"model: {error}") from None


def build_network(config: TrainConfig, spec: ModelSpec, device: torch.device) -> SanaTransformer:
    """Build the network with its first weights, float32. Raises ConfigError or WeightsError."""
    built, grows = network_config(config.model, spec), config.model.start == "grow"
    if config.model.start == "scratch":
        torch.manual_seed(config.seed)
        return initialise(SanaTransformer(built)).to(device)
    model = load_base(spec, torch.float32, device)
    return (_grown(model, built, config) if grows else model).requires_grad_(True)


def load_base(spec: ModelSpec, dtype: torch.dtype, device: torch.device) -> SanaTransformer:
    """Load the base model's transformer as it is. Raises WeightsError."""
    with torch.device("meta"):
        model = SanaTransformer(spec.transformer)
    load_transformer(
        model, spec.transformer, spec.transformer_source, dtype=dtype, device=device, part=spec.weights
    )
    return model


def _grown(base: SanaTransformer, config: TransformerConfig, run: TrainConfig) -> SanaTransformer:
    """Return a deeper network that begins where `base` is; every block has weights of its own."""
    plan = _growth_plan(run.model, base.config.depth, config.depth)
    return reshape_network(base, plan, config, torch.Generator().manual_seed(run.seed))
