"""The choice of an engine: by the machine, by wish, and what it says of itself."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sanakit.adapt import Int8Linear
from sanakit.adapt.packed import PackedMixFFN, PackedUpsample
from sanakit.base import RequestError
from sanakit.base.precision import Precision
from sanakit.kernels import choice
from sanakit.kernels.choice import Problem
from sanakit.kernels.int8_matmul import onednn
from sanakit.layers import Upsample
from sanakit.pipeline import ImageRequest
from sanakit.pipeline.engine import Engine, apply_engine, choose_engine
from tests.oracles.tiny import Folders
from tests.pipeline.drawing import open_model, ours

REQUEST = ImageRequest(prompt="a red cube", width=96, height=64, steps=3, seed=11)
CPU = Precision(torch.device("cpu"), torch.float32, "as asked")
NO_INT8 = onednn.refuses(Problem("int8_matmul", "cpu", torch.float32))


def test_off_is_plain_torch() -> None:
    assert choose_engine("off", CPU).name == "plain"


def test_auto_packs_where_the_table_has_a_row_and_says_why_not() -> None:
    with choice.force("linear", "reference"):
        engine = choose_engine("auto", CPU)
        assert engine.name == "plain"
        assert "switched off" in engine.reason
    half = choose_engine(None, Precision(torch.device("cpu"), torch.float16, "as asked"))
    assert (half.name, "float32" in half.reason) == ("plain", True)
    away = choose_engine(None, Precision(torch.device("cuda"), torch.bfloat16, "as asked"))
    assert (away.name, "CPUs only" in away.reason) == ("plain", True)


def test_what_cannot_be_done_is_refused() -> None:
    with pytest.raises(RequestError, match="unknown engine 'warp'; use auto, off, int8"):
        choose_engine("warp", CPU)
    words = r"int8 was asked for, but it needs .* \(triton\); runs on CPUs only \(onednn\): choose auto"
    with pytest.raises(RequestError, match=words):
        choose_engine("int8", Precision(torch.device("cuda"), torch.bfloat16, "as asked"))


def test_kernels_leave_a_model_as_it_is_but_for_upsampling() -> None:
    """As on a GPU, where nothing packs products."""
    part = nn.Sequential(Upsample(8, 4, shuffle=False), nn.Linear(256, 256))
    with choice.force("linear", "reference"):
        apply_engine(Engine("kernels", "as asked"), "decoder", part)
    assert [type(module) for module in part] == [PackedUpsample, nn.Linear]


def test_engines_draw_nearly_the_same_and_say_which_drew(tiny: Folders) -> None:
    plain, packed = (open_model(tiny(), fast=fast) for fast in ("off", "auto"))
    wanted, found = ours(plain, REQUEST)[0], ours(packed, REQUEST)[0]
    assert torch.linalg.norm(found - wanted) < 1e-5 * torch.linalg.norm(wanted)
    assert plain.provenance["engine"] == "plain"
    if packed.engine.name == "packed":
        assert isinstance(packed.parts.transformer.blocks[0].ffn, PackedMixFFN)
        assert packed.provenance["engine"] == "packed"


@pytest.mark.skipif(NO_INT8 is not None, reason="this CPU or torch has no int8 products, and int8 is refused")
def test_int8_draws_a_picture_of_the_shipped_model() -> None:
    model = open_model("toybox", fast="int8")
    assert model.images(REQUEST.replace(prompt="a red cube", width=256, height=256, steps=2))
    assert isinstance(model.parts.transformer.blocks[0].attention.qkv, Int8Linear)
