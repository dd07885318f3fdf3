"""Stage one: the prompt of a plan as text states, and sentences about words and tokens that the model can't read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sanakit.base.echo import printable
from sanakit.base.errors import RequestError
from sanakit.base.sentinel import check_finite
from sanakit.base.text_states import TextStates
from sanakit.flow import Branch
from sanakit.pipeline.plan import Plan
from sanakit.pipeline.regions import name_all
from sanakit.text import CHI, Instruction, TextEncoder, clean_prompt, content_key, null_states, words_of
from sanakit.weights import ModelSpec, read_words

_WORDS_LISTED = 5  # unknown words in a note
_WORD_LENGTH = 40  # letters of each


@dataclass(frozen=True, eq=False)
class PromptStates:
    """The states of a prompt [1, L, C], and those of the unconditional branch if guidance needs them.

    owners: for a picture with regions, the region k whose words each state of the prompt stands for, [L] int64; 0 for
    those of the rest.
    source: those of the words that describe the source of an edit by words.
    """

    cond: TextStates
    uncond: TextStates | None = None
    owners: Tensor | None = None
    source: PromptStates | None = None

    def branch(self, name: Branch) -> TextStates:
        """Return the states that a branch of guidance reads."""
        return self.uncond if self.is_null(name) and self.uncond is not None else self.cond

    def is_null(self, name: Branch) -> bool:
        """Return whether a branch reads other states than those of the prompt."""
        return name == "uncond" and self.uncond is not None

    def to(self, device: torch.device) -> PromptStates:
        """Return the same on a device."""
        uncond = None if self.uncond is None else self.uncond.to(device=device)
        source = None if self.source is None else self.source.to(device)
        return PromptStates(self.cond.to(device=device), uncond, self.owners, source)


def instruction_of(plan: Plan) -> Instruction | None:
    """Return the text before the prompt, if there is one."""
    return CHI if plan.instruct else None


def prompt_key(plan: Plan) -> str:
    """Return a key of the text of a plan: plans of one model with equal keys have equal `PromptStates`.

    `truncate` is a part of it: who allows no cut must be refused a long prompt that another allowed to be cut.
    """
    negative = plan.request.negative if plan.uncond else ""
    regions = [region.prompt for region in plan.request.regions]
    words = plan.edit.words if plan.edit is not None else None
    source: list[str | bool] = [] if words is None else ["from", words.prompt, words.guidance > 1]
    request = plan.request
    return content_key(
        request.prompt, negative, plan.instruct, plan.uncond, request.truncate, *regions, *source
    )


@torch.no_grad()
def encode_prompt(encoder: TextEncoder, spec: ModelSpec, plan: Plan) -> PromptStates:
    """Encode the prompt and, for guidance, the negative prompt in the checkpoint's dialect.

    For an edit by words also those of the source. Raises NumericsError for NaN or Inf.
    """
    found = _encode(encoder, spec, plan)
    if plan.edit is None or plan.edit.words is None:
        return found
    return replace(found, source=_encode(encoder, spec, plan.of_source()))


def _encode(encoder: TextEncoder, spec: ModelSpec, plan: Plan) -> PromptStates:
    dialect, instruction = spec.dialect, instruction_of(plan)
    text, places = _whole_text(spec, plan)
    cond = encoder.encode([text], instruction, lowercase=dialect.lowercase)
    check_finite(cond.states, "the text encoder")
    uncond = null_states(encoder, dialect, cond.mask, plan.request.negative) if plan.uncond else None
    if not places:
        return PromptStates(cond, uncond)
    letters = encoder.letters(text, instruction, lowercase=dialect.lowercase)
    return PromptStates(cond, uncond, _owners(letters, places))


def _whole_text(spec: ModelSpec, plan: Plan) -> tuple[str, list[tuple[int, int]]]:
    """Return what is encoded, the prompt and the words of regions, and where in it the words of each region lie."""
    if not plan.request.regions:
        return plan.request.prompt, []
    # Cleaned before places are counted, for lower case may have other letters; to clean it again changes nothing.
    prompt, *words = (
        clean_prompt(text, spec.dialect.lowercase)
        for text in (plan.request.prompt, *(region.prompt for region in plan.request.regions))
    )
    return name_all(prompt, words)


def _owners(letters: Sequence[tuple[int, int]], places: Sequence[tuple[int, int]]) -> Tensor:
    """Return the region k from 1 whose words each state stands for, [L] int64; 0 for none. Both: first and end."""
    owners = torch.zeros(len(letters), dtype=torch.int64)
    for state, (first, end) in enumerate(letters):
        for number, place in enumerate(places, 1):
            if first < place[1] and place[0] < end:
                owners[state] = number
    return owners


def text_notes(encoder: TextEncoder, spec: ModelSpec, plan: Plan) -> list[str]:
    """Return sentences about tokens that are cut and words that the model hasn't learnt.

    Raises RequestError if tokens would be cut and the request doesn't allow it.
    """
    words = f"{_whole_text(spec, plan)[0]} {plan.request.source_prompt or ''}"
    return [*_cut_notes(encoder, spec, plan), *_word_notes(spec, words)]


def unknown_words(spec: ModelSpec, prompt: str) -> list[str]:
    """Return the words of a prompt, each once, that aren't on the list of a model that ships one (`words.txt`).

    Models with a general vocabulary, such as Gemma's, ship none: what they read in pieces they know as well.
    """
    learnt = read_words(spec)
    return [word for word in dict.fromkeys(words_of(prompt)) if word not in learnt] if learnt else []


def _cut_notes(encoder: TextEncoder, spec: ModelSpec, plan: Plan) -> list[str]:
    request, lowercase = plan.request, spec.dialect.lowercase
    name = "prompt, with the words of its regions," if request.regions else "prompt"
    cut = {name: encoder.count_cut(_whole_text(spec, plan)[0], instruction_of(plan), lowercase=lowercase)}
    if request.source_prompt is not None:
        cut["source prompt"] = encoder.count_cut(
            request.source_prompt, instruction_of(plan), lowercase=lowercase
        )
    if plan.uncond:
        cut["negative prompt"] = encoder.count_cut(request.negative, None, lowercase=lowercase)
    found = [(name, f"{count} token{'s' if count > 1 else ''}") for name, count in cut.items() if count]
    if found and not request.truncate:
        name, tokens = found[0]
        raise RequestError(
            f"the {name} is too long: its last {tokens} would be cut, {encoder.max_tokens} are read; "
            f"shorten it, or allow the cut with truncate"
        )
    return [
        f"the {name} is too long: its last {tokens} were cut, {encoder.max_tokens} are read."
        for name, tokens in found
    ]


def _word_notes(spec: ModelSpec, prompt: str) -> list[str]:
    words = unknown_words(spec, prompt)
    if not words:
        return []
    listed = ", ".join(word[:_WORD_LENGTH] for word in words[:_WORDS_LISTED])
    more = f" and {len(words) - _WORDS_LISTED} more" if len(words) > _WORDS_LISTED else ""
    if spec.about is not None:
        draws = printable(f"{spec.about.name} draws {spec.about.draws}")
        knows = printable("; ".join(spec.about.knows))
        return [f"{draws}; it does not know: {listed}{more}." + (f" It knows {knows}." if knows else "")]
    some, their = ("words", "their") if len(words) > 1 else ("word", "its")
    return [
        f"this model has not learnt the {some} {listed}{more}, and draws something else in {their} place."
    ]
