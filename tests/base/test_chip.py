"""The CPU as a value: what the system lists, what the environment forbids, what follows."""

from __future__ import annotations

from pathlib import Path

import pytest

from sanakit.base import chip as base
from sanakit.base.chip import Chip, read_listing, this_chip
from tests.oracles import chips


def test_what_linux_lists_is_read(tmp_path: Path) -> None:
    listing = tmp_path / "cpuinfo"
    listing.write_text(
        "processor : 0\nmodel name\t: A Chip\nflags\t\t: fpu avx2 amx_bf16\nflags\t\t: other\n"
    )
    assert read_listing(str(listing)) == {"name": "A Chip", "features": {"fpu", "avx2", "amx_bf16"}}
    listing.write_text("Features : asimd BF16\n")
    assert read_listing(str(listing)) == {"features": {"asimd", "bf16"}}
    assert read_listing(str(tmp_path / "absent")) == {}


def test_this_machine_has_a_name() -> None:
    chip = this_chip()
    assert chip.name
    assert chip.name == " ".join(chip.name.split())
    assert chip == this_chip()
    assert hash(chip) == hash(this_chip())


def test_limits_of_the_environment_are_part_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "default")
    base.detect.cache_clear()
    try:
        chip = this_chip()
    finally:
        monkeypatch.undo()
        base.detect.cache_clear()
    assert chip.limits == ("ATEN_CPU_CAPABILITY=default", "ONEDNN_MAX_CPU_ISA=AVX2")
    assert str(chip).endswith("(ATEN_CPU_CAPABILITY=default, ONEDNN_MAX_CPU_ISA=AVX2)")


def test_onednn_may_be_switched_off_meanwhile() -> None:
    there = this_chip().onednn
    with chips.without_onednn():
        assert not this_chip().onednn
    assert this_chip().onednn == there


@pytest.mark.parametrize(
    ("chip", "bf16", "int8"),
    [
        (Chip(), None, None),
        (chips.AVX2, None, None),
        (chips.VNNI, "AVX512-BF16", "AVX512-VNNI"),
        (chips.CLIENT, None, "AVX-VNNI"),
        (chips.AMX, "AMX-BF16", "AMX-INT8"),
        (chips.ARM, None, None),
    ],
)
def test_units_by_features(chip: Chip, bf16: str | None, int8: str | None) -> None:
    assert (chip.bf16_unit, chip.int8_unit) == (bf16, int8)


@pytest.mark.parametrize(
    ("limit", "allowed"),
    [
        ("AVX2", False),
        ("AVX512_CORE_BF16", False),
        ("avx512_core_amx", True),
        ("AVX512_CORE_AMX_FP16", True),
        ("ALL", True),
    ],
)
def test_amx_that_onednn_may_not_use_is_none(limit: str, allowed: bool) -> None:
    limited = Chip(
        features=chips.AMX.features, limits=("ATEN_CPU_CAPABILITY=avx2", f"ONEDNN_MAX_CPU_ISA={limit}")
    )
    assert limited.amx_int8 is allowed
    assert chips.AMX.amx_int8
    assert not chips.VNNI.amx_int8


@pytest.mark.parametrize(
    ("features", "words"),
    [
        ({"fpu", "avx2", "fma"}, ("AVX2",)),
        (
            {"avx2", "avx512f", "avx512_vnni", "avx512_bf16"},
            ("AVX2", "AVX-512", "AVX512-VNNI", "AVX512-BF16"),
        ),
        ({"avx2", "amx_bf16", "amx_int8"}, ("AVX2", "AMX-BF16", "AMX-INT8")),
        ({"asimd", "i8mm", "bf16"}, ("NEON", "I8MM", "BF16")),
        ({"sse2"}, ()),
    ],
)
def test_instruction_sets_in_words(features: set[str], words: tuple[str, ...]) -> None:
    assert Chip(features=frozenset(features)).instructions == words
