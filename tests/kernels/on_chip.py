"""What this process's CPU takes of the table, and what small networks give on it.

`python -m tests.kernels.on_chip FILE`, run by `test_chips.py` under environments that take instructions away, which a
process can't do to itself. Writes the rows taken and outputs by name to FILE (by `torch.save`), and prints oneDNN's own
names of what it ran.
"""

from __future__ import annotations

import os
import sys

import torch
from torch import Tensor, nn

from sanakit.adapt import pack, quantise
from sanakit.autoencoder import DCAE, AutoencoderConfig, Stage
from sanakit.base.text_states import TextStates
from sanakit.kernels import choice, proof
from sanakit.kernels.choice import Problem, select
from sanakit.transformer import SanaTransformer, TransformerConfig, initialise

DTYPES = (torch.float32, torch.bfloat16)


def rows() -> dict[str, str]:
    """Operator and dtype -> the row that runs it on this CPU."""
    return {
        f"{op} {str(dtype).removeprefix('torch.')}": select(op, Problem(op, "cpu", dtype)).name
        for op in choice.operators()
        for dtype in DTYPES
    }


def run_samples() -> dict[str, Tensor]:
    """The sample of every operator by the row that was taken."""
    return {
        f"{op} {str(dtype).removeprefix('torch.')}": select(op, Problem(op, "cpu", dtype))
        .ready(*sample(dtype))()
        .float()
        for op, sample in proof.SAMPLES.items()
        for dtype in DTYPES
    }


@torch.no_grad()
def networks() -> dict[str, Tensor]:
    """A transformer and a decoder with fixed weights: as built, packed, in int8."""
    outputs: dict[str, Tensor] = {}
    text = TextStates(_numbers(2, 6, 16, seed=1), torch.ones(2, 6, dtype=torch.bool))
    x = _numbers(2, 4, 6, 10, seed=2)
    for name, edits in (("built", ()), ("packed", (pack,)), ("int8", (quantise, pack))):
        model = _transformer()
        for edit in edits:
            edit(model)
        outputs[f"transformer {name}"] = model(x, torch.tensor([300.0]), model.precompute_text(text))
    for name in ("built", "packed"):
        decoder = _autoencoder()
        if name == "packed":
            pack(decoder)
        outputs[f"decoder {name}"] = decoder.decode(_numbers(1, decoder.config.latent_channels, 2, 3, seed=3))
    return outputs


def _transformer() -> SanaTransformer:
    # Wide enough for layers in int8 and for packing.
    config = TransformerConfig(
        latent_channels=4, width=256, depth=2, heads=8, cross_heads=4, text_width=16, qk_norm=True
    )
    return _filled(initialise(SanaTransformer(config)))


def _autoencoder() -> DCAE:
    stages = (Stage("res", 8, 1), Stage("res", 16, 1), Stage("evit", 16, 1, (5,)))
    return _filled(DCAE(AutoencoderConfig(latent_channels=8, head_dim=8, encoder=stages, decoder=stages)))


def _filled(model: nn.Module):
    """Weights that depend on no other code: fresh ones leave heads at zero."""
    for number, weight in enumerate(model.parameters()):
        wide = weight.dim() > 1
        spread = 0.5 / weight[0].numel() ** 0.5 if wide else 0.1
        weight.data = spread * _numbers(*weight.shape, seed=number) + (0.0 if wide else 1.0)
    return model.eval().requires_grad_(False)


def _numbers(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


if __name__ == "__main__":
    torch.set_num_threads(
        int(os.environ["OMP_NUM_THREADS"])
    )  # more than there are cores are not taken unasked
    with torch.no_grad():
        taken = rows()
        run_samples()
        with torch.backends.mkldnn.verbose(torch.backends.mkldnn.VERBOSE_ON):
            outputs = run_samples()
        outputs |= networks()
        again = networks()
    same = all(torch.equal(outputs[name], again[name]) for name in again)
    torch.save(
        {"rows": taken, "outputs": outputs, "same": same, "threads": torch.get_num_threads()}, sys.argv[1]
    )
