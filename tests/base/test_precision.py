"""Device and dtype: the choice per machine, its reason, and what bad names get."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch

from sanakit.base import precision
from sanakit.base.chip import Chip
from sanakit.base.errors import RequestError
from sanakit.base.precision import Precision, decide
from tests.oracles import chips


@pytest.fixture(autouse=True)
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nothing measured on this machine counts, and nothing is left behind."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


def on_cpu(patch: pytest.MonkeyPatch, chip: Chip, gain: float | None = None) -> Precision:
    """What is decided on a machine with this CPU where bf16 was measured to be so much faster."""

    def measure() -> float:
        assert gain is not None, "a chip without a unit for bf16 is measured"
        return gain

    patch.setattr(precision, "_measured_gain", measure)
    with chips.on(patch, chip):
        return decide("cpu")


@pytest.mark.parametrize(
    ("chip", "gain", "dtype", "words"),
    [
        (
            chips.AMX,
            8.0,
            torch.bfloat16,
            "bf16, because products with the CPU's AMX-BF16 take 0.12 of the time",
        ),
        (chips.VNNI, 1.8, torch.bfloat16, "AVX512-BF16 take 0.56 of the time of fp32 (measured, kept in "),
        (chips.VNNI, 1.1, torch.float32, "fp32, because products with the CPU's AVX512-BF16 take 0.91"),
        (chips.VNNI, 0.3, torch.float32, "AVX512-BF16 take 3.33 of the time of fp32"),
        (chips.AVX2, None, torch.float32, "neither AMX nor AVX512-BF16"),
        (chips.CLIENT, None, torch.float32, "neither AMX nor AVX512-BF16"),
        (chips.ARM, None, torch.float32, "neither AMX nor AVX512-BF16"),
    ],
)
def test_the_cpu_runs_bf16_only_where_it_is_faster(
    monkeypatch: pytest.MonkeyPatch, chip: Chip, gain: float | None, dtype: torch.dtype, words: str
) -> None:
    found = on_cpu(monkeypatch, chip, gain)
    assert found.dtype == dtype
    assert words in found.reason


def test_what_was_measured_once_does_not_flip(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine measures otherwise the next time: the first answer holds, for this chip and torch."""
    first = on_cpu(monkeypatch, chips.VNNI, 1.8)
    assert on_cpu(monkeypatch, chips.VNNI, 0.9) == first
    limited = Chip(name="an EPYC", features=chips.VNNI.features, limits=("ONEDNN_MAX_CPU_ISA=AVX2",))
    assert on_cpu(monkeypatch, limited, 0.2).dtype == torch.float32
    monkeypatch.setattr(torch, "__version__", "9.9.9")
    assert on_cpu(monkeypatch, chips.VNNI, 0.9).dtype == torch.float32


def test_a_home_that_keeps_nothing(monkeypatch: pytest.MonkeyPatch, cache_folder: Path) -> None:
    (cache_folder / "sanakit").write_text("a file where the folder should be")
    found = on_cpu(monkeypatch, chips.VNNI, 1.8)
    assert found.dtype == torch.bfloat16
    assert "could not be kept" in found.reason


class Products:
    """In the place of oneDNN's products, which not every machine has: notes what it is given, and takes its time."""

    def __init__(self, seconds: dict[torch.dtype, float]) -> None:
        self.seconds, self.given = seconds, list[torch.dtype]()

    def _reorder_linear_weight(self, weight: torch.Tensor, shape: None) -> torch.Tensor:
        return weight

    def _linear_pointwise(self, x: torch.Tensor, weight: torch.Tensor, *_: object) -> None:
        self.given.append(x.dtype)
        time.sleep(self.seconds[x.dtype])


def test_measuring_is_short_and_gives_a_ratio(monkeypatch: pytest.MonkeyPatch) -> None:
    products = Products({torch.float32: 0.004, torch.bfloat16: 0.001})
    monkeypatch.setattr(torch.ops, "mkldnn", products)
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    gain = precision._measured_gain()
    assert 1 < gain < 8
    assert 10 <= len(products.given) <= 40
    assert products.given.count(torch.float32) == products.given.count(torch.bfloat16)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads


def test_a_switched_off_library_is_no_unit(monkeypatch: pytest.MonkeyPatch) -> None:
    found = on_cpu(monkeypatch, chips.SWITCHED_OFF)
    assert found.dtype == torch.float32
    assert "oneDNN, which drives AMX-BF16, is missing or switched off" in found.reason


def test_bf16_that_was_asked_for_says_where_it_is_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    with chips.on(monkeypatch, chips.AVX2):
        assert "no unit for it and fp32 is faster" in decide("cpu", "bf16").reason
    with chips.on(monkeypatch, chips.AMX):
        assert "fp32 is faster" not in decide("cpu", "bf16").reason


@pytest.mark.parametrize(("has_bf16", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_cuda_runs_bf16_where_the_gpu_does(
    monkeypatch: pytest.MonkeyPatch, has_bf16: bool, dtype: torch.dtype
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a GPU")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: has_bf16)
    found = decide()
    assert (found.device.type, found.dtype) == ("cuda", dtype)
    assert "a GPU" in found.reason


def test_mps_runs_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    found = decide("auto", "auto")
    assert (found.device.type, found.dtype) == ("mps", torch.float32)


def test_auto_falls_to_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    found = decide(dtype="fp32")
    assert (found.device, found.dtype) == (torch.device("cpu"), torch.float32)
    assert "as asked" in found.reason


def test_fp16_only_on_request_and_with_islands() -> None:
    found = decide("cpu", "fp16")
    assert found.dtype == torch.float16
    assert "fp32 islands" in found.reason
    assert decide("cpu").dtype != torch.float16


@pytest.mark.parametrize(("device", "dtype"), [("tpu", None), ("meta", None), ("", None), ("cpu", "int8")])
def test_unknown_names_are_refused(device: str, dtype: str | None) -> None:
    with pytest.raises(RequestError, match="unknown"):
        decide(device, dtype)


def test_a_device_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    for name in ("cuda:1", "mps"):
        with pytest.raises(RequestError, match="not on this machine"):
            decide(name)
