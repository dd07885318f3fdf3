"""Key lists of published checkpoints: name -> shape, kept in `tests/golden/keys/` with blocks folded into ranges.

`python -m tests.weights.keylists` writes the diffusers ones anew, from diffusers' own modules on the meta device.
The official ones (`pth-*.json`) follow the key scheme of the published `.pth` files.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[1] / "golden" / "keys"
Shapes = dict[str, tuple[int, ...]]

_BLOCK = re.compile(r"(transformer_blocks\.|(?:down|up)_blocks\.\d+\.|^blocks\.)(\d+)\.")
_RANGE = re.compile(r"\{(\d+)-(\d+)\}")


def read_keys(name: str) -> Shapes:
    """The list of `tests/golden/keys/{name}.json`, unfolded."""
    found: Shapes = {}
    for pattern, shape in json.loads((FOLDER / f"{name}.json").read_text()).items():
        match = _RANGE.search(pattern)
        for i in range(int(match[1]), int(match[2]) + 1) if match else [0]:
            found[_RANGE.sub(str(i), pattern)] = tuple(shape)
    return found


def fold(shapes: Shapes) -> dict[str, list[int]]:
    """Consecutive blocks of equal shape become one line: `transformer_blocks.{0-19}.attn1.to_q.weight`."""
    groups: dict[tuple[str, tuple[int, ...]], list[int]] = {}
    for key, shape in shapes.items():
        match = _BLOCK.search(key)
        groups.setdefault((_BLOCK.sub(r"\1{}.", key), shape), []).append(int(match[2]) if match else 0)
    folded: dict[str, list[int]] = {}
    for (pattern, shape), numbers in groups.items():
        assert numbers == list(range(numbers[0], numbers[-1] + 1))
        span = f"{{{numbers[0]}-{numbers[-1]}}}"
        folded[pattern.replace("{}", span)] = list(shape)
    return folded


def diffusers_shapes(model: Any, config: dict[str, Any]) -> Shapes:
    """Keys and shapes of a diffusers model class built on the meta device."""
    import torch

    with torch.device("meta"):
        return {key: tuple(value.shape) for key, value in model.from_config(config).state_dict().items()}


def _write() -> None:
    from diffusers import AutoencoderDC, SanaTransformer2DModel

    from tests.weights.published_configs import AUTOENCODERS, TRANSFORMERS

    FOLDER.mkdir(parents=True, exist_ok=True)
    for model, configs in ((SanaTransformer2DModel, TRANSFORMERS), (AutoencoderDC, AUTOENCODERS)):
        for name, config in configs.items():
            lines = [
                f"  {json.dumps(k)}: {json.dumps(s)}"
                for k, s in fold(diffusers_shapes(model, config)).items()
            ]
            (FOLDER / f"{name}.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    _write()
