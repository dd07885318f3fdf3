"""Too little memory or room is one sentence that says so and what to do, whoever finds it first."""

from __future__ import annotations

import errno
import os
import re

import pytest
import torch

from sanakit.cli.errors import describe, exit_code
from tests.cli.running import Sana

LACKS = [
    (MemoryError(), "not enough memory: .*smaller size"),
    (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), "not enough memory: "),
    (
        RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory"),
        "not enough",
    ),
    (OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)), "not enough memory"),
    (
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/a/b"),
        "can't write '/a/b': No space left.*free some room",
    ),
    (OSError(errno.EROFS, os.strerror(errno.EROFS)), "can't write: Read-only file system"),
]


@pytest.mark.parametrize(("error", "words"), LACKS, ids=lambda value: str(value)[:25])
def test_a_lack_is_told_as_what_it_is(error: Exception, words: str) -> None:
    text = describe(error)
    assert re.match(words, text), text
    assert "unexpected" not in text and "\n" not in text
    assert exit_code(error) == 2


def test_other_faults_stay_unexpected() -> None:
    assert describe(RuntimeError("shapes differ")).startswith("unexpected RuntimeError: shapes differ")
    assert exit_code(RuntimeError("shapes differ")) == 1


def test_an_allocation_that_fails_while_drawing(sana: Sana, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*given: object) -> None:
        raise RuntimeError(
            "[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory: you tried"
        )

    monkeypatch.setattr("sanakit.pipeline.generation.decode", fails)
    result = sana.draw("a red cube")
    assert result.exit_code == 2
    assert "not enough memory" in result.stderr


def test_weights_that_can_not_be_mapped_are_not_called_damaged(
    sana: Sana, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*given: object, **options: object) -> None:
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    monkeypatch.setattr("sanakit.weights.tensor_files.safe_open", fails)
    result = sana.draw("a red cube")
    assert result.exit_code == 2
    assert "not enough memory for reading" in result.stderr
    assert "again" not in result.stderr
