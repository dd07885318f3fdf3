"""A model that was asked to be plain takes no Triton kernel, and nobody else is told."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from sanakit.adapt.runner import plain
from sanakit.autoencoder import DCAE
from sanakit.autoencoder import PRESETS as AUTOENCODERS
from sanakit.base.precision import Precision
from sanakit.base.text_states import TextStates
from sanakit.kernels import choice
from sanakit.kernels.choice import Problem, avoid, explain
from sanakit.pipeline.engine import choose_engine
from sanakit.transformer import SanaTransformer, TransformerConfig

CONFIG = TransformerConfig(latent_channels=4, width=32, heads=4, depth=2, cross_heads=2, text_width=8)
ON_GPU = Problem("linear_attention", "cuda", torch.bfloat16, (("rotary", 0), ("width", 32)))


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine on which Triton's kernels run, as far as the table can tell."""
    monkeypatch.setattr("sanakit.kernels.gpu.unavailable", lambda: None)
    monkeypatch.setattr("sanakit.pipeline.engine.why_no_kernels", lambda: None)
    choice._select.cache_clear()
    yield
    choice._select.cache_clear()


def verdict() -> str:
    return explain(ON_GPU)[0]


@torch.no_grad()
def test_a_plain_model_avoids_triton_while_it_runs(gpu: None) -> None:
    assert verdict() == "linear_attention: triton: chosen"
    model, decoder, heard = SanaTransformer(CONFIG), DCAE(AUTOENCODERS["toybox"]), list[str]()
    for part in (model.blocks[0], model.text, decoder.decoder):
        part.register_forward_hook(lambda *_: heard.append(verdict()))
    runner = plain(model)
    text_kv = runner.precompute_text(TextStates(torch.randn(1, 3, 8), torch.ones(1, 3, dtype=torch.bool)))
    runner(torch.randn(1, 4, 2, 2), torch.tensor([1.0]), text_kv)
    plain(decoder).decode(torch.randn(1, 32, 1, 1))
    assert heard == ["linear_attention: triton: able, avoided"] * 3
    assert verdict() == "linear_attention: triton: chosen"


def test_blocks_within_blocks() -> None:
    problem = Problem("linear_attention", "cpu", torch.float32)
    with avoid("heads_first"):
        with avoid("triton"):
            assert explain(problem)[1:] == [
                "linear_attention: heads_first: able, avoided", "linear_attention: reference: chosen",
            ]  # fmt: skip
        assert explain(problem)[2] == "linear_attention: reference: chosen"
    assert explain(problem)[1] == "linear_attention: heads_first: chosen"


def test_what_auto_is_called_where_kernels_run(gpu: None) -> None:
    cuda = Precision(torch.device("cuda"), torch.bfloat16, "as asked")
    assert choose_engine(None, cuda).name == "kernels"
    assert choose_engine("off", cuda).name == "plain"
