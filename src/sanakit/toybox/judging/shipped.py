"""The judge that ships: weights, its own measured accuracy, and the features of held-out renders.

`judge.safetensors` holds the network under `network.` and `features` [n, C] of held-out renders; `judge.json` holds its
accuracy on them, as rendered and through the shipped autoencoder. Both are written by `recipes/toybox_judge.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from sanakit.base.aligned import aligned
from sanakit.base.errors import WeightsError
from sanakit.base.json_text import read_object
from sanakit.toybox.judging.network import Judge
from sanakit.weights import assign, open_weights

FOLDER = Path(__file__).parent
STEM = "judge"
_NETWORK = "network."


@dataclass(frozen=True)
class ShippedJudge:
    """The network in evaluation mode, float32, and what belongs to it.

    features: [n, C] of held-out renders. accuracy: condition -> attribute -> (right, of how many).
    """

    network: Judge
    features: Tensor
    accuracy: dict[str, dict[str, tuple[int, int]]]


@cache
def load_judge(folder: Path = FOLDER) -> ShippedJudge:
    """Return the judge of a folder, by default the one that ships. Raises WeightsError."""
    weights = open_weights(folder, STEM)
    network = Judge()
    pairs = [(name.removeprefix(_NETWORK), weights[name]) for name in weights if name.startswith(_NETWORK)]
    assign(network, pairs, dtype=torch.float32, where=str(folder))
    try:
        features = aligned(weights["features"].float())
        stored = read_object(folder / f"{STEM}.json")
        accuracy = {
            condition: {name: (int(right), int(of)) for name, (right, of) in table.items()}
            for condition, table in stored.items()
        }
    except (KeyError, OSError, ValueError, TypeError, AttributeError) as error:
        raise WeightsError(f"{folder} lacks a part of the judge: {error}") from error
    return ShippedJudge(network.eval(), features, accuracy)
