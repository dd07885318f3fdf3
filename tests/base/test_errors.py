"""The exception tree and the two dialects."""

from __future__ import annotations

import dataclasses
import inspect

import pytest

import sanakit
from sanakit.base import errors
from sanakit.base.dialect import DIFFUSERS, OFFICIAL


def test_exit_codes() -> None:
    for name, error in inspect.getmembers(errors, inspect.isclass):
        assert issubclass(error, errors.SanakitError)
        assert error.exit_code == (2 if issubclass(error, errors.InputError) else 1)
        assert getattr(sanakit, name) is error


def test_dialects_are_frozen_and_differ() -> None:
    assert OFFICIAL.null_mask == "prompt"
    assert not OFFICIAL.lowercase
    assert DIFFUSERS.null_mask == "own"
    assert DIFFUSERS.lowercase
    assert OFFICIAL.attention_eps > DIFFUSERS.attention_eps
    with pytest.raises(dataclasses.FrozenInstanceError):
        OFFICIAL.lowercase = True  # type: ignore[misc]
