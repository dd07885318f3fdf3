"""A first config for a set of pictures: looks at how many there are, how large, how described; `sanakit train --new`.

Every choice stands beside its reason, as a comment, in the order in which one would change it.
"""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from sanakit.base.errors import DataError, OutputError
from sanakit.base.files import write_new
from sanakit.data import Item, PictureSet

_SQUARE = 1.05  # a longer side up to this many times the shorter one counts as square
_EPOCHS = 60
_FEWEST, _MOST = 200, 20_000  # steps
_SHOWN = 150  # characters of a caption

BASES = {"toybox": 256, "sana-0.6b-512": 512, "sana-0.6b-1024": 1024}
"""Base models by the size that they know."""

_TEXT = """# A run on the {count} pictures of {path}, made by `sanakit train --new`.
#
#   sanakit data check {shell_path} --base {size}{squares}
#   sanakit train {name} --plan       # what it will do: memory, time, disk, and what looks wrong
#   sanakit train {name}              # Ctrl-C saves and ends; --resume goes on
#   sanakit generate "..." --model {shell_run}/model
#
# Every key with its default and its meaning: sanakit train --keys

folder: {run}   # checkpoints, journal, previews and the finished model
data:
  path: {yaml_path}
  square: {square}   # {why_square}
  held: {held}   # kept out of training, to measure with (validate)

# {why_base}
base: {base}
model: {{start: base}}   # go on from its weights; scratch draws fresh ones

batch: {batch}   # pictures of a step; if memory is short: accumulate: 2, or recompute: 1
phases:
  # {why_size};
  # {why_steps}
  - {{steps: {steps}, size: {size}}}

optimizer: {{name: adamw, lr: 1.0e-4}}
schedule: {{cooldown: 0.2}}   # the rate rises over a tenth of the run, and falls to 0 over its last fifth
clip: 1.0   # largest norm of the gradient; 0 for no limit
ema: {ema}   # decay of the averaged weights, which the finished model has

validate: {validate}   # steps between measurements on what is held out; 0 for never
preview:
  every: {every}   # steps
  prompts:   # of the set itself: what is learnt shows there first
{prompts}
saving: {{minutes: 10}}
"""


@dataclass(frozen=True, kw_only=True)
class StarterChoice:
    """The decisions of a starter config.

    Attributes:
        base: model. size: in pixels. square: whether pictures are cut to squares.
        batch, steps, held: see `TrainConfig`. usable: pictures that have a caption and are not held out.
    """

    base: str
    size: int
    square: bool
    batch: int
    steps: int
    held: int
    usable: int


def choose(items: Sequence[Item], gpu: bool) -> StarterChoice:
    """Choose for a set. gpu: whether there is one; without it the model that ships is taken, which is small.

    Raises DataError for a set without captions.
    """
    captioned = [item for item in items if item.captions]
    if not captioned:
        raise DataError(
            f"none of the {len(items)} pictures has a caption; write one beside each (a.png, a.txt), or run "
            "`sanakit data caption`"
        )
    side = median(min(item.width, item.height) for item in captioned)
    base = fitting_base(side, gpu)
    square = sum(is_square(item) for item in captioned) >= 0.8 * len(captioned)
    held = min(64, len(captioned) // 20) if len(captioned) >= 40 else 0
    usable = len(captioned) - held
    batch = min(16, 2 ** max(0, (usable // 4).bit_length() - 1))
    steps = max(_FEWEST, min(_MOST, round(_EPOCHS * usable / batch, -2)))
    return StarterChoice(
        base=base, size=BASES[base], square=square, batch=batch, steps=steps, held=held, usable=usable
    )


def fitting_base(side: float, gpu: bool) -> str:
    """Return the base model for pictures whose shorter side is usually `side` pixels."""
    fitting = [name for name, size in BASES.items() if size <= side and (name == "toybox") != gpu]
    return fitting[-1] if fitting else "sana-0.6b-512" if gpu else "toybox"


def starter(pictures: PictureSet, name: str, run: Path, gpu: bool) -> str:
    """Return the config as commented YAML. name: of its file. run: folder of the run. Raises DataError."""
    chosen = choose(list(pictures), gpu)
    silent = sum(not item.captions for item in pictures)
    every = max(1, chosen.steps // 10)
    without = f", {silent} more have no caption" if silent else ""
    side = median(min(item.width, item.height) for item in pictures)
    times = chosen.steps * chosen.batch / chosen.usable
    return _TEXT.format(
        count=len(pictures), path=pictures.path, name=shlex.quote(name), run=quoted(run),
        shell_path=shlex.quote(str(pictures.path)), shell_run=shlex.quote(str(run)), yaml_path=quoted(pictures.path),
        size=chosen.size, squares=" --square" if chosen.square else "", square=str(chosen.square).lower(),
        why_square="most are square" if chosen.square else "each is cut to the nearest of the trained aspect ratios",
        held=chosen.held, base=chosen.base, why_base=why_base(chosen.base), batch=chosen.batch, steps=chosen.steps,
        why_steps=f"each of {chosen.usable} pictures is seen about {times:.0f} times{without}",
        why_size=f"the shorter sides are {side:.0f} px in the middle, and {chosen.base} knows {chosen.size} px",
        ema=0.999 if chosen.steps >= 2000 else 0.99, validate=every if chosen.held else 0, every=every,
        prompts="\n".join(f"    - {quoted(text)}" for text in sample_prompts(pictures)),
    )  # fmt: skip


def quoted(value: object) -> str:
    """Return a text as YAML and JSON quote it."""
    return json.dumps(str(value), ensure_ascii=False)


def write_starter(path: Path, text: str) -> None:
    """Write a new file. Raises OutputError if there is one already, or it can't be written."""

    def alone() -> Iterator[Path]:
        yield path
        raise OutputError(f"{path} already exists and stays as it is: name another file")

    write_new(alone(), text.encode())


def free_run(name: str) -> Path:
    """`runs/NAME`, or with a number behind it if that is taken."""
    return next(
        path
        for number in range(1, 10**6)
        if not os.path.lexists(path := Path("runs") / (name if number == 1 else f"{name}-{number}"))
    )


def why_base(base: str) -> str:
    """Return the comment about a base model."""
    if base == "toybox":
        return (
            "The model that ships: small enough for a CPU; its text encoder knows the words of its own world alone.\n"
            "# For words of yours take a published one, e.g. sana-0.6b-512, and a GPU."
        )
    return (
        "A published model, whose text encoder reads any words; the model that ships, for a CPU, is toybox."
    )


def is_square(item: Item) -> bool:
    """Return whether a picture is nearly square."""
    return max(item.width, item.height) <= _SQUARE * min(item.width, item.height)


def sample_prompts(pictures: PictureSet) -> list[str]:
    """Two captions of the set, on one line each and without what no terminal shows."""
    captioned = [item.captions[0].text for item in pictures if item.captions]
    chosen = dict.fromkeys((captioned[0], captioned[len(captioned) // 2]))
    cleaned = ["".join(c for c in " ".join(text.split()) if c.isprintable())[:_SHOWN] for text in chosen]
    return [text for text in cleaned if text] or ["a picture"]
