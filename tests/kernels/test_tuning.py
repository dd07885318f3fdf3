"""Launch parameters as data: defaults, the user's table over them, a broken table in one sentence, and their lookup."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from sanakit.base.errors import ConfigError
from sanakit.kernels import tuning

CPU = torch.device("cpu")
WARPS = {"warps": 16}


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty place for the user's table, on a machine with a GPU of sm_90."""
    path = tmp_path / "cache" / "tuning.json"
    monkeypatch.setattr(tuning, "USER", path)
    monkeypatch.setattr(tuning, "chip", lambda device: "sm_90")
    tuning.forget()
    yield path
    tuning.forget()


def test_defaults_need_no_run(table: Path) -> None:
    assert tuning.launch("modulated_norm", 2048, CPU) == {"warps": 4}
    assert tuning.launch("linear_attention", 128, CPU) == {"tokens": 32, "warps": 8, "stages": 1}
    assert tuning.describe() == "defaults that ship"
    assert not table.exists()


@pytest.mark.parametrize(("size", "warps"), [(1, 4), (2048, 4), (2049, 8), (4096, 8), (9000, 8)])
def test_an_entry_holds_for_sizes_up_to_its_own_and_the_largest_beyond(
    table: Path, size: int, warps: int
) -> None:
    assert tuning.launch("modulated_norm", size, CPU) == {"warps": warps}


def test_what_was_measured_comes_first_and_only_on_its_chip(
    table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert tuning.launch("modulated_norm", 2048, CPU) == {"warps": 4}
    tuning.keep({"modulated_norm": {"sm_90": {"2048": WARPS}}})
    tuning.keep({"qk_norm.backward": {"sm_90": {"2048": WARPS}}})
    assert tuning.launch("modulated_norm", 2048, CPU) == WARPS
    assert tuning.launch("qk_norm.backward", 2048, CPU) == WARPS
    assert tuning.describe() == f"measured for sm_90 ({table}), defaults that ship for the rest"
    monkeypatch.setattr(tuning, "chip", lambda device: "sm_80")
    assert tuning.launch("modulated_norm", 2048, CPU) == {"warps": 4}


def test_tables_are_read_once(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tuning.launch("modulated_norm", 2048, CPU)
    table.parent.mkdir()
    table.write_text(json.dumps({"modulated_norm": {"sm_90": {"2048": WARPS}}}), encoding="utf-8")
    assert tuning.launch("modulated_norm", 1024, CPU) == {"warps": 4}


def test_what_is_tried_reaches_only_its_block_and_kernel(table: Path) -> None:
    with tuning.trying("modulated_norm", WARPS):
        assert tuning.launch("modulated_norm", 2048, CPU) == WARPS
        assert tuning.launch("qk_norm.backward", 2048, CPU) == {"warps": 4}
    assert tuning.launch("modulated_norm", 2048, CPU) == {"warps": 4}


BROKEN = {
    "{": "can't be read",
    "[]": "not a JSON object",
    '{"warp_drive": {}}': "'warp_drive', which isn't a kernel",
    '{"modulated_norm": {"fast": {}}}': "'fast', which isn't a chip",
    '{"modulated_norm": {"sm_90": {"big": {"warps": 4}}}}': "no warps at modulated_norm, sm_90, 'big'",
    '{"modulated_norm": {"sm_90": {"64": {"warps": 3}}}}': "no warps at",
    '{"modulated_norm": {"sm_90": {"64": {"warps": true}}}}': "no warps at",
    '{"modulated_norm": {"sm_90": {"64": {"warps": 4, "more": 1}}}}': "no warps at",
}


@pytest.mark.parametrize("text", BROKEN)
def test_a_broken_table_is_one_sentence_and_the_defaults(table: Path, text: str) -> None:
    table.parent.mkdir()
    table.write_text(text, encoding="utf-8")
    with pytest.warns(UserWarning, match="defaults that ship are used"):
        assert tuning.launch("modulated_norm", 64, CPU) == {"warps": 4}
    assert BROKEN[text] in tuning.describe() and str(table) in tuning.describe()
    with pytest.raises(ConfigError):
        tuning.keep({})
    assert table.read_text(encoding="utf-8") == text


def test_what_no_kernel_could_use_is_not_kept(table: Path) -> None:
    with pytest.raises(ConfigError, match="no warps at modulated_norm"):
        tuning.keep({"modulated_norm": {"sm_90": {"2048": {"warps": 0}}}})
    assert not table.exists()


def test_an_unknown_kernel_is_named(table: Path) -> None:
    with pytest.raises(ConfigError, match="no launch parameters of absent"):
        tuning.launch("absent", 1, CPU)


def test_a_table_with_former_names_of_kernels_is_read(table: Path) -> None:
    table.parent.mkdir()
    former = {"residual_norm": {"sm_90": {"128": {"values": 2048, "warps": 2}}}}
    table.write_text(json.dumps(former), encoding="utf-8")
    assert tuning.launch("rms_norm", 128, CPU) == {"values": 2048, "warps": 2}
    tuning.keep({"modulated_norm": {"sm_90": {"2048": WARPS}}})
    assert set(json.loads(table.read_text(encoding="utf-8"))) == {"rms_norm", "modulated_norm"}
