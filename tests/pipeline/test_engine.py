"""The choice of an engine: by the machine, by wish, and what it says of itself."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sanakit.adapt import Int8Linear
from sanakit.adapt.pack import PackedMixFFN, PackedUpsample
from sanakit.base import RequestError
from sanakit.base.chip import Chip
from sanakit.base.precision import Precision
from sanakit.kernels import choice, table
from sanakit.kernels.choice import Problem
from sanakit.layers import Upsample
from sanakit.pipeline import ImageRequest
from sanakit.pipeline.engine import ENGINES, Engine, choose_engine, edit, edits, fast_of, int8_remark
from sanakit.pipeline.events import Note, PictureDone
from tests.oracles import chips
from tests.oracles.tiny import Folders
from tests.pipeline.drawing import open_model, ours

REQUEST = ImageRequest(prompt="a red cube", width=96, height=64, steps=3, seed=11)
SLOW = "takes 500 times as long as plain torch on this CPU"
CPU = Precision(torch.device("cpu"), torch.float32, "as asked")
INT8 = choice.select("int8_matmul", Problem("int8_matmul", "cpu", torch.float32)).name


def test_off_is_plain_torch() -> None:
    assert choose_engine("off", CPU).name == "plain"


def test_auto_packs_where_the_table_has_a_row_and_says_why_not() -> None:
    with choice.force("linear", "reference"):
        engine = choose_engine("auto", CPU)
        assert engine.name == "plain"
        assert "switched off" in engine.reason
    away = choose_engine(None, Precision(torch.device("cuda"), torch.bfloat16, "as asked"))
    assert (away.name, "CPUs only" in away.reason) == ("plain", True)


def test_float32_on_a_gpu_is_float32() -> None:
    """cuDNN would round what it convolves to TF32, which can draw another picture than a CPU."""
    cuda = torch.device("cuda")
    full = choose_engine("off", Precision(cuda, torch.float32, "as asked"))
    assert full.exact and not choose_engine("off", CPU).exact
    assert not choose_engine("off", Precision(cuda, torch.bfloat16, "as asked")).exact
    conv, seen = torch.backends.cudnn.conv, []
    before = conv.fp32_precision

    class Watching(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(conv.fp32_precision)
            return x.reshape(3)  # what has not three numbers fails inside

    runner = edit(Watching(), "transformer", full)
    runner(torch.zeros(3))
    with pytest.raises(RuntimeError):
        runner(torch.zeros(4))
    assert seen == ["ieee", "ieee"] and conv.fp32_precision == before


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("fast", [None, "int8"])
def test_half_precision_that_crawls_is_widened_and_says_so(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, fast: str | None
) -> None:
    """A loop for want of units, on whatever chip: found by trial, not by flags."""
    half = Precision(torch.device("cpu"), dtype, "as asked")
    monkeypatch.setattr("sanakit.pipeline.engine.half_slowness", lambda *_: 370.0)
    with chips.on(monkeypatch, chips.ARM):
        slow = choose_engine(fast, half)
        off = choose_engine("off", half)
    assert slow.widen
    assert slow.name == (fast or "widened")
    assert "they take 370 times as long on this CPU" in slow.reason
    assert not off.widen
    monkeypatch.setattr("sanakit.pipeline.engine.half_slowness", lambda *_: None)
    with chips.on(monkeypatch, chips.ARM):
        assert not choose_engine(fast, half).widen
        assert choose_engine(None, half).name == "plain"


def test_a_picture_in_bf16_on_any_chip(tiny: Folders) -> None:
    model = open_model(tiny(), dtype="bf16")
    assert model.engine.name in ("packed", "widened", "plain")
    wanted = ours(open_model(tiny(), fast="off"), REQUEST)[0]
    assert torch.linalg.norm(ours(model, REQUEST)[0] - wanted) < 0.1 * torch.linalg.norm(wanted)


def test_what_cannot_be_done_is_refused() -> None:
    with pytest.raises(RequestError, match="unknown engine 'warp'; use auto, off, int8"):
        choose_engine("warp", CPU)
    words = r"int8 was asked for, but it needs .* \(triton\); runs on CPUs only \(onednn, .*\): choose auto"
    with pytest.raises(RequestError, match=words):
        choose_engine("int8", Precision(torch.device("cuda"), torch.bfloat16, "as asked"))


def test_the_edits_of_each_part_in_their_order() -> None:
    def names(part: str, engine: Engine) -> list[str]:
        return [change.__name__.lstrip("_") for change in edits(part, engine)]

    everything = Engine(name="all", quantise="int8", compile=True, graphs=True, widen=True)
    assert names("transformer", everything) == [
        "keep_pages", "quantise", "fuse_quantisation", "pack", "prepare_layers", "compile_blocks", "record", "widen",
    ]  # fmt: skip
    assert names("decoder", everything) == ["keep_pages", "fuse_quantisation", "pack", "record", "widen"]
    assert names("text", everything) == ["widen"]
    assert names("transformer", ENGINES["off"]) == names("decoder", ENGINES["off"]) == ["plain"]
    assert names("text", ENGINES["off"]) == []


def test_an_engine_in_a_png_file_is_asked_for_by_its_option() -> None:
    names = {
        "packed": "auto",
        "kernels": "auto",
        "widened": "auto",
        "plain": "off",
        "int8-graphs": "int8-graphs",
    }
    assert {name: fast_of(name) for name in names} == names


def test_kernels_leave_a_model_as_it_is_but_for_upsampling() -> None:
    """As on a GPU, where nothing packs products."""
    part = nn.Sequential(Upsample(8, 4, shuffle=False), nn.Linear(256, 256))
    with choice.force("linear", "reference"):
        assert edit(part, "decoder", Engine(name="kernels")) is part
    assert [type(module) for module in part] == [PackedUpsample, nn.Linear]


def test_engines_draw_nearly_the_same_and_say_which_drew(tiny: Folders) -> None:
    plain, packed = (open_model(tiny(), fast=fast) for fast in ("off", "auto"))
    wanted, found = ours(plain, REQUEST)[0], ours(packed, REQUEST)[0]
    assert torch.linalg.norm(found - wanted) < 1e-5 * torch.linalg.norm(wanted)
    assert plain.provenance["engine"] == "plain"
    if packed.engine.name == "packed":
        assert isinstance(packed.parts.transformer.blocks[0].ffn, PackedMixFFN)
        assert packed.provenance["engine"] == "packed"


def test_int8_draws_a_picture_of_the_shipped_model_and_says_what_it_saves() -> None:
    """On every chip: where there are no units for it, as fast as float32, and a note says so."""
    model = open_model("toybox", fast="int8")
    events = list(model.generate(REQUEST.replace(prompt="a red cube", width=256, height=256, steps=2)))
    assert any(isinstance(event, PictureDone) for event in events)
    assert isinstance(model.parts.transformer.blocks[0].attention.qkv, Int8Linear)
    notes = [event.message for event in events if isinstance(event, Note)]
    saves = [note for note in notes if note.startswith("int8 saves memory but no time here")]
    assert len(saves) == (0 if INT8.startswith("onednn") else 1)


@pytest.mark.parametrize(
    ("chip", "words"),
    [
        (chips.AVX2, "multiplied as float32: this CPU has no int8 products (AMX, AVX512-VNNI or AVX-VNNI)"),
        (chips.ARM, "multiplied as float32: packs for x86, and this CPU is aarch64"),
        (chips.SWITCHED_OFF, "it is switched off"),
    ],
)
@pytest.mark.parametrize("fast", ["int8", None])
def test_chips_without_int8_say_so(
    monkeypatch: pytest.MonkeyPatch, chip: Chip, words: str, fast: str | None
) -> None:
    with chips.on(monkeypatch, chip):
        remark = int8_remark(CPU)
        reason = choose_engine(fast, CPU).reason
    assert remark is not None
    assert words in remark
    assert ("no time here" in reason) == (fast == "int8")


def test_chips_whose_int8_is_slow_after_all_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """The chip has the unit, oneDNN walks through its reference loop: tried, found slow, told."""
    monkeypatch.setattr(table, "failure", lambda op, *rest: SLOW if op == "int8_matmul" else None)
    choice._select.cache_clear()
    with chips.on(monkeypatch, chips.VNNI):
        remark = int8_remark(CPU)
    choice._select.cache_clear()
    assert remark is not None
    assert "as float64" in remark  # every row was found slow here
    assert SLOW in remark
