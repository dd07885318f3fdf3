"""Compiled blocks: the numbers of the plain ones, one graph for all blocks and prompts, and a word where not."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from sanakit.adapt import pack, quantise
from sanakit.adapt.compile import compile_blocks, why_not
from sanakit.adapt.quantise import fuse_quantisation, prepare_layers
from sanakit.adapt.runner import Runner
from sanakit.base.text_states import TextStates
from sanakit.transformer import SanaTransformer, TransformerConfig, initialise

CONFIG = TransformerConfig(
    latent_channels=4, width=256, depth=3, heads=8, cross_heads=4, text_width=64, qk_norm=True
)


def rounded(model: nn.Module) -> None:
    quantise(model)
    fuse_quantisation(model)


EDITS: dict[str, Callable[[nn.Module], object]] = {"built": lambda _: None, "packed": pack, "int8": rounded}


def model_of(edit: str) -> SanaTransformer:
    torch.manual_seed(0)
    model = initialise(SanaTransformer(CONFIG)).eval().requires_grad_(False)
    nn.init.normal_(model.head.out.weight)  # a fresh head gives zeros
    EDITS[edit](model)
    if edit != "built":
        pack(model)
    return model


def velocity(model: SanaTransformer | Runner, words: int, side: int = 4) -> torch.Tensor:
    draw = torch.Generator().manual_seed(1)
    text = TextStates(torch.randn(2, words, 64, generator=draw), torch.ones(2, words, dtype=torch.bool))
    with torch.no_grad():
        # As drawing does: the text is read once, and the blocks are given what they keep of it.
        return model(
            torch.randn(2, 4, side, side, generator=draw), torch.tensor([500.0]), model.precompute_text(text)
        )


@pytest.mark.parametrize("edit", EDITS)
def test_compiled_blocks_give_the_same_with_one_graph_for_every_prompt(edit: str) -> None:
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    model = model_of(edit)
    wanted = [velocity(model, words) for words in (7, 12, 5)]
    compiled = compile_blocks(model, backend="aot_eager")
    for words, plain in zip((7, 12, 5), wanted, strict=True):
        error = torch.linalg.norm(velocity(compiled, words) - plain) / torch.linalg.norm(plain)
        assert error < (
            0.02 if edit == "int8" else 1e-5
        )  # a value at the edge of two steps may go either way
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1


def test_int8_is_prepared_before_and_not_in_the_graph() -> None:
    """As drawing does: the first call is a compiled one."""
    wanted = velocity(model_of("int8"), 7)
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    model = model_of("int8")
    prepare_layers(model)
    compiled = compile_blocks(model, backend="aot_eager")
    assert torch.linalg.norm(velocity(compiled, 7) - wanted) < 0.02 * torch.linalg.norm(wanted)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1
    assert not torch._dynamo.utils.counters["graph_break"]


def test_another_size_is_compiled_for_and_drawn() -> None:
    torch._dynamo.reset()
    model = model_of("packed")
    wanted = velocity(model, 7, side=6)
    compiled = compile_blocks(model, backend="aot_eager")
    velocity(compiled, 7)
    torch.testing.assert_close(velocity(compiled, 7, side=6), wanted, rtol=1e-4, atol=1e-4)


def test_without_a_compiler_the_reason_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch._inductor.config.cpp.cxx", ("no-such-compiler",))
    assert "needs a C++ compiler" in str(why_not())
