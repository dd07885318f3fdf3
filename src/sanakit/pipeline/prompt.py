"""Stage one: the prompt of a plan as text states, and sentences about words and tokens that the model can't read."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sanakit.base.echo import printable
from sanakit.base.errors import RequestError
from sanakit.base.sentinel import check_finite
from sanakit.base.text_states import TextStates
from sanakit.flow import Branch
from sanakit.pipeline.plan import Plan
from sanakit.text import CHI, Instruction, TextEncoder, content_key, null_states, words_of
from sanakit.weights import ModelSpec, read_words

_WORDS_LISTED = 5  # unknown words in a note
_WORD_LENGTH = 40  # letters of each


@dataclass(frozen=True, eq=False)
class PromptStates:
    """The states of a prompt [1, L, C], and those of the unconditional branch if guidance needs them.

    texts: for a picture with regions, the number of the text that each state of the prompt belongs to, [L] int64: 0 for
    the prompt, k for region k, whose states follow one another.
    source: those of the words that describe the source of an edit by words.
    """

    cond: TextStates
    uncond: TextStates | None = None
    texts: Tensor | None = None
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
        return PromptStates(self.cond.to(device=device), uncond, self.texts, source)


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
    dialect = spec.dialect
    cond = encoder.encode([plan.request.prompt], instruction_of(plan), lowercase=dialect.lowercase)
    check_finite(cond.states, "the text encoder")
    uncond = null_states(encoder, dialect, cond.mask, plan.request.negative) if plan.uncond else None
    if not plan.request.regions:
        return PromptStates(cond, uncond)
    words = [region.prompt for region in plan.request.regions]
    others = [encoder.encode([text], instruction_of(plan), lowercase=dialect.lowercase) for text in words]
    joined, texts = _one_after_another(cond, *others)
    return PromptStates(joined, uncond, texts)


def _one_after_another(*texts: TextStates) -> tuple[TextStates, Tensor]:
    """Return the real states of several texts as one [1, L, C], and the number of the text of each, [L]."""
    states = [text.states[:, text.mask[0]] for text in texts]
    check_finite(torch.cat(states, dim=1), "the text encoder")
    numbers = [torch.full((part.shape[1],), number) for number, part in enumerate(states)]
    joined = torch.cat(states, dim=1)
    return TextStates(
        joined, torch.ones(joined.shape[:2], dtype=torch.bool, device=joined.device)
    ), torch.cat(numbers)


def text_notes(encoder: TextEncoder, spec: ModelSpec, plan: Plan) -> list[str]:
    """Return sentences about tokens that are cut and words that the model hasn't learnt.

    Raises RequestError if tokens would be cut and the request doesn't allow it.
    """
    words = " ".join(
        [
            plan.request.prompt,
            plan.request.source_prompt or "",
            *(region.prompt for region in plan.request.regions),
        ]
    )
    return [*_cut_notes(encoder, spec, plan), *_word_notes(spec, words)]


def unknown_words(spec: ModelSpec, prompt: str) -> list[str]:
    """Return the words of a prompt, each once, that aren't on the list of a model that ships one (`words.txt`).

    Models with a general vocabulary, such as Gemma's, ship none: what they read in pieces they know as well.
    """
    learnt = read_words(spec)
    return [word for word in dict.fromkeys(words_of(prompt)) if word not in learnt] if learnt else []


def _cut_notes(encoder: TextEncoder, spec: ModelSpec, plan: Plan) -> list[str]:
    request, lowercase = plan.request, spec.dialect.lowercase
    cut = {"prompt": encoder.count_cut(request.prompt, instruction_of(plan), lowercase=lowercase)}
    if request.source_prompt is not None:
        cut["source prompt"] = encoder.count_cut(
            request.source_prompt, instruction_of(plan), lowercase=lowercase
        )
    for number, region in enumerate(request.regions, 1):
        words = f"text of region {number}"
        cut[words] = encoder.count_cut(region.prompt, instruction_of(plan), lowercase=lowercase)
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
