"""The heap that keeps its pages: on glibc it is switched on and off, and memory goes back when asked."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest
import torch

from sanakit.base import heap

GLIBC = platform.libc_ver()[0] == "glibc"


def resident() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.skipif(not GLIBC, reason="the settings are glibc's own; elsewhere the functions return False")
def test_pages_are_kept_and_given_back() -> None:
    size = 256 << 20
    try:
        assert heap.keep_pages()
        tensor = torch.ones(size, dtype=torch.uint8)
        del tensor
        kept = resident()
        assert heap.give_back()
        assert kept - resident() > size // 2
    finally:
        assert heap.keep_no_pages()


def test_without_such_a_library_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heap, "_c_library", lambda: None)
    assert not heap.keep_pages()
    assert not heap.keep_no_pages()
    assert not heap.give_back()
