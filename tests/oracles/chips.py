"""CPUs that this machine is not: one value says what is there, and tests hand out another."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

from sanakit.base import chip as base
from sanakit.base.chip import Chip

AVX2 = Chip(name="an AVX2 chip", features=frozenset({"avx2"}))
VNNI = Chip(name="an EPYC", features=frozenset({"avx2", "avx512_vnni", "avx512_bf16"}))
CLIENT = Chip(name="a client chip", features=frozenset({"avx2", "avx_vnni"}))
AMX = Chip(name="a Xeon", features=frozenset({"avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16"}))
AMX_FORBIDDEN = Chip(name="a Xeon", features=AMX.features, limits=("ONEDNN_MAX_CPU_ISA=AVX512_CORE_VNNI",))
ARM = Chip(name="a Graviton", arch="aarch64", features=frozenset({"asimd", "bf16", "i8mm"}))
SWITCHED_OFF = Chip(name="a Xeon", features=AMX.features, onednn=False)


@contextmanager
def on(patch: pytest.MonkeyPatch, chip: Chip) -> Iterator[Chip]:
    """Within the block, everything that asks for the chip is told this one."""
    with patch.context() as inner:
        inner.setattr(base, "detect", lambda: chip)
        yield chip


@contextmanager
def without_onednn() -> Iterator[None]:
    """Within the block oneDNN is off, by the switch of `torch.backends.mkldnn.flags`, which warns of another one."""
    torch._C._set_mkldnn_enabled(False)
    try:
        yield
    finally:
        torch._C._set_mkldnn_enabled(True)
