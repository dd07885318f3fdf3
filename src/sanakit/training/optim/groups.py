"""What is decayed and what is not: parameters in two groups."""

from __future__ import annotations

from typing import Any

from torch import nn

from sanakit.base.errors import ConfigError


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """The trained parameters: matrices (of two axes or more) with decay; biases and the scales of norms without.

    The split does not depend on `weight_decay`, so a saved state fits whatever the decay is. Raises ConfigError where
    nothing is trained.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    if not trained:
        raise ConfigError("optimizer: the model has no parameter that is trained.")
    matrices = [p for p in trained if p.ndim > 1]
    vectors = [p for p in trained if p.ndim <= 1]
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
