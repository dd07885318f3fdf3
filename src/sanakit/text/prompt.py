"""From a prompt to the text that is tokenised, and the rule of which token states condition the transformer.

The published checkpoints were trained with a long instruction (CHI, "complex human instruction", SANA paper
section 2.3) in front of every prompt. The language model reads it; the transformer doesn't: of all token
states only the first (<bos>) and the last `max_tokens - 1` are kept.

    tokens  <bos> i i i i i i i i p p p p p p . . .      i instruction, p prompt, . padding
    kept    ^                   ^ ^ ^ ^ ^ ^ ^ ^ ^ ^      the last i: a trailing space, may merge with p
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

from sanakit.base.errors import ConfigError
from sanakit.base.json_text import parse_json

MAX_TOKENS = 300


@dataclass(frozen=True)
class Instruction:
    """A text put directly in front of every prompt, without a separator. Raises ConfigError if empty."""

    text: str

    def __post_init__(self) -> None:
        if not self.text:
            raise ConfigError("an instruction needs a text; to use no instruction pass None")

    @classmethod
    def of(cls, lines: Sequence[str]) -> Instruction:
        """Return the instruction made of several lines, joined by newlines as the checkpoints have it."""
        return cls("\n".join(lines))


def _load_chi() -> Instruction:
    lines = parse_json(files(__package__).joinpath("chi.json").read_text(encoding="utf-8"))["lines"]
    return Instruction.of(lines)


CHI = _load_chi()


def clean_prompt(prompt: str, lowercase: bool) -> str:
    """Return the prompt without white space at its ends; the diffusers dialect lower-cases it first."""
    return (prompt.lower() if lowercase else prompt).strip()


def final_prompt(prompt: str, instruction: Instruction | None, lowercase: bool) -> str:
    """Return the text that is tokenised. Only the prompt is lower-cased, never the instruction."""
    cleaned = clean_prompt(prompt, lowercase)
    return cleaned if instruction is None else instruction.text + cleaned


def length_limit(instruction_tokens: int, max_tokens: int = MAX_TOKENS) -> int:
    """Return the number of tokens that the language model reads at most, instruction and <bos> included.

    `instruction_tokens` counts the instruction with its <bos>; 0 stands for no instruction. Two tokens of the
    instruction are among the kept ones: <bos> and the trailing space.
    """
    return max_tokens if instruction_tokens == 0 else instruction_tokens + max_tokens - 2


def kept_positions(limit: int, max_tokens: int = MAX_TOKENS) -> list[int]:
    """Return the positions, out of `limit`, whose states condition the transformer: the first and the last ones."""
    return [0, *range(limit - max_tokens + 1, limit)]


def tokens_cut(tokens: int, limit: int) -> int:
    """Return how many of `tokens` at the end of a prompt are beyond `limit`."""
    return max(0, tokens - limit)
