"""The published instruction, the final prompt, and the rule of kept tokens."""

from __future__ import annotations

import inspect
import json
from importlib.resources import files

import pytest
from diffusers import SanaPipeline

from sanakit.base import ConfigError
from sanakit.text import (
    CHI,
    Instruction,
    clean_prompt,
    final_prompt,
    kept_positions,
    length_limit,
    tokens_cut,
)


def test_chi_is_the_published_one() -> None:
    published = inspect.signature(SanaPipeline.__call__).parameters["complex_human_instruction"].default
    stored = json.loads(files("sanakit.text").joinpath("chi.json").read_text(encoding="utf-8"))
    assert stored["lines"] == published and len(published) == 8
    assert stored["licence"] == "Apache-2.0" and "NVlabs/Sana" in stored["source"]
    assert "\n".join(published) == CHI.text


def test_final_prompt_lowers_only_the_prompt() -> None:
    assert final_prompt(" A Sign: SANA \n", None, lowercase=True) == "a sign: sana"
    assert final_prompt(" A Sign: SANA \n", None, lowercase=False) == "A Sign: SANA"
    assert final_prompt("A Cat", CHI, lowercase=True) == CHI.text + "a cat"


def test_lowering_comes_before_stripping() -> None:
    """The order of diffusers."""
    text = "  \u0130stanbul\u3000"
    assert clean_prompt(text, lowercase=True) == text.lower().strip()


def test_an_instruction_is_never_empty() -> None:
    with pytest.raises(ConfigError, match="pass None"):
        Instruction("")


@pytest.mark.parametrize(("instruction_tokens", "max_tokens"), [(0, 300), (40, 300), (2, 8), (1, 8), (0, 8)])
def test_kept_positions_are_first_and_last(instruction_tokens: int, max_tokens: int) -> None:
    limit = length_limit(instruction_tokens, max_tokens)
    everything = list(range(limit))
    expected = [everything[i] for i in [0, *range(-max_tokens + 1, 0)]]
    assert kept_positions(limit, max_tokens) == expected
    if instruction_tokens:
        assert kept_positions(limit, max_tokens)[1] == instruction_tokens - 1


def test_cut_counts_only_what_is_lost() -> None:
    assert [tokens_cut(n, 300) for n in (1, 300, 301, 450)] == [0, 0, 1, 150]
