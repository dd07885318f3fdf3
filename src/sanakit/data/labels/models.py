"""From the name of a model to a captioner or a scorer: `toybox`, `open_clip:...`, `vqa:...`, a folder, or a hub id.

`vqa:NAME` asks a vision-language model whether a picture shows a text. A package may add scorers by the entry points
`sanakit.scorers`, whose names are taken before folders and hub ids. Every download is announced first, and no code of
a repository is executed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.metadata import entry_points
from typing import Literal, cast

from sanakit.base.errors import ConfigError
from sanakit.base.precision import decide
from sanakit.data.labels.labellers import Captioner, Labeller, Scorer, captioning, scoring
from sanakit.data.labels.open_clip import PREFIX, open_clip_scorer
from sanakit.data.labels.toybox import toybox_captioner, toybox_scorer
from sanakit.data.labels.vision import question_scorer, vision_captioner, vision_scorer
from sanakit.weights import resolve_snapshot

TOYBOX = "toybox"
VQA = "vqa:"
SCORERS = "sanakit.scorers"
"""Entry points of packages that offer a `Scorer`."""
Announce = Callable[[str], object]


@dataclass(frozen=True, kw_only=True)
class LabelModel:
    """A model that labels, before it is loaded; it can be sent to another process.

    task: "caption" or "score". name: `toybox`, `open_clip:MODEL/WEIGHTS`, `vqa:` before a folder or a hub id, or one of
    these alone. device, dtype: as in `base.precision.decide`. instruction, max_tokens: of captioners, see
    `vision_captioner`.
    """

    task: Literal["caption", "score"]
    name: str
    device: str | None = None
    dtype: str | None = None
    instruction: str | None = None
    max_tokens: int = 128


def load_labeller(model: LabelModel, announce: Announce = lambda text: None) -> Labeller:
    """Load the labeller of a model. Raises as `load_captioner` and `load_scorer` do."""
    if model.task == "caption":
        return captioning(load_captioner(model, announce), model.name)
    return scoring(load_scorer(model, announce))


def fetch_model(model: LabelModel, announce: Announce = lambda text: None) -> None:
    """Download the model if its name is a hub id, so that workers need not. Raises ModelNotFoundError."""
    if model.name != TOYBOX and not model.name.startswith(PREFIX) and _plugin(model.name) is None:
        resolve_snapshot(model.name.removeprefix(VQA), announce=announce)


def load_captioner(model: LabelModel, announce: Announce = lambda text: None) -> Captioner:
    """Load a captioner. Raises ModelNotFoundError, or ConfigError if the model writes no captions or does not load."""
    if model.max_tokens < 1:
        raise ConfigError(f"a caption has 1 token or more, not {model.max_tokens}")
    if model.name == TOYBOX:
        if model.instruction is not None:
            raise ConfigError("the Toybox judge reads no instruction: leave --instruction out")
        return toybox_captioner()
    if model.name.startswith((PREFIX, VQA)) or _plugin(model.name) is not None:
        raise ConfigError(f"{model.name} only scores captions: choose a vision-language model to write them")
    load = partial(vision_captioner, instruction=model.instruction, max_tokens=model.max_tokens)
    return load(resolve_snapshot(model.name, announce=announce), decide(model.device, model.dtype))


def load_scorer(model: LabelModel, announce: Announce = lambda text: None) -> Scorer:
    """Load a scorer. Raises ModelNotFoundError, or ConfigError if the model scores nothing or does not load."""
    if model.name == TOYBOX:
        return toybox_scorer()
    plugin = _plugin(model.name)
    if plugin is not None:
        return plugin
    precision = decide(model.device, model.dtype)
    if model.name.startswith(PREFIX):
        return open_clip_scorer(model.name.removeprefix(PREFIX), precision, announce)
    if model.name.startswith(VQA):
        return question_scorer(resolve_snapshot(model.name.removeprefix(VQA), announce=announce), precision)
    return vision_scorer(resolve_snapshot(model.name, announce=announce), precision)


def _plugin(name: str) -> Scorer | None:
    """Load the scorer that an installed package offers by this name. Raises ConfigError if it can't be imported."""
    for entry in entry_points(group=SCORERS, name=name):
        try:
            found = entry.load()
        except Exception as error:  # whatever the package raises
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise ConfigError(f"the scorer {name} can't be loaded: {reason}") from error
        if not callable(found):
            raise ConfigError(f"the scorer {name} isn't a function of pictures and captions")
        return cast(Scorer, found)
    return None
