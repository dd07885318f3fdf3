"""Device and dtype: the choice per machine, its reason, and what bad names get."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sanakit.base import precision
from sanakit.base.errors import RequestError
from sanakit.base.precision import Precision, decide


def on_cpu(monkeypatch: pytest.MonkeyPatch, *flags: str) -> Precision:
    """What is decided on a machine without GPU whose CPU has these flags."""
    monkeypatch.setattr(precision, "_cpu_flags", lambda: frozenset(flags))
    return decide("cpu")


def test_the_cpu_runs_bf16_only_in_hardware(monkeypatch: pytest.MonkeyPatch) -> None:
    amx = on_cpu(monkeypatch, "avx2", "amx_bf16", "avx512_bf16")
    assert amx.dtype == torch.bfloat16
    assert "AMX" in amx.reason
    avx = on_cpu(monkeypatch, "avx512_bf16")
    assert avx.dtype == torch.bfloat16
    assert "AVX512-BF16" in avx.reason
    plain = on_cpu(monkeypatch, "avx2")
    assert plain.dtype == torch.float32
    assert "neither" in plain.reason


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


def test_cpu_flags_are_read_from_the_system(tmp_path: Path) -> None:
    listing = tmp_path / "cpuinfo"
    listing.write_text("processor : 0\nflags\t\t: fpu avx2 amx_bf16\nflags\t\t: other\n")
    assert precision._cpu_flags(str(listing)) == {"fpu", "avx2", "amx_bf16"}
    assert precision._cpu_flags(str(tmp_path / "absent")) == frozenset()
    listing.write_text("Features : asimd\n")
    precision._cpu_flags.cache_clear()
    assert precision._cpu_flags(str(listing)) == frozenset()
