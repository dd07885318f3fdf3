"""A first config of the task "lora" for a folder of pictures: `sanakit train --new FOLDER --task lora`.

Made for 5 to 20 pictures of one subject or style, with captions or without; more are welcome.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from sanakit.base.errors import DataError
from sanakit.data import Item, PictureSet
from sanakit.training.starter import BASES, fitting_base, is_square, quoted, sample_prompts, why_base

PROMPT = "a picture of sks"
"""Stands for the caption of pictures that have none; to be replaced."""

_SEEN = 200  # times that each picture is seen: the usual 100 to 300 of a subject
_FEWEST, _MOST = 300, 3000  # steps
_MANY = 50  # pictures from which on a larger rank has something to hold

_TEXT = """# A LoRA of the {count} pictures of {path}, made by `sanakit train --new --task lora`.
#
#   sanakit train {name} --plan       # what it will do: memory, time, disk, and what looks wrong
#   sanakit train {name}              # Ctrl-C saves and ends; --resume goes on
#   sanakit generate "..." --model {base} --lora {shell_run}/lora
#
# docs/lora.md says more. Every key with its default and its meaning: sanakit train --keys

task: lora
folder: {run}   # checkpoints, journal, previews and the finished LoRA
data:
  path: {yaml_path}
  square: {square}   # {why_square}

# {why_base}
base: {base}

lora:
  rank: {rank}   # inner width of the adapters: 4 to 8 for one thing, 16 to 32 for a style or many pictures
  targets: [attention, cross, ffn.expand, ffn.project]   # layers that get one; the fewer, the less is learnt and lost
{prompt}  # What the model knows of the class stays if it is held to its own answers there (DreamBooth). It draws these
  # pictures before training; each step then takes a bit more than twice as long.
  # prior: {{weight: 10, target: base, prompts: [{class_prompt}], count: {classes}}}

batch: {batch}   # pictures of a step; if memory is short: accumulate: 2, recompute: 1, or lora.frozen: int8
phases:
  # {why_size};
  # each of {count} pictures is seen about {times:.0f} times: look at the previews, and stop where they are best
  - {{steps: {steps}, size: {size}}}

optimizer: {{name: adamw, lr: {rate}}}   # {why_rate}
schedule: {{cooldown: 0.2}}   # the rate rises over a tenth of the run, and falls to 0 over its last fifth
clip: 1.0   # largest norm of the gradient; 0 for no limit
ema: 0.99   # decay of the averaged adapters, which the finished LoRA has

preview:
  every: {every}   # steps
  prompts:   # add some that put it in new places: they show what was learnt by heart
{prompts}
saving: {{steps: {every}, keep: 0}}   # every checkpoint stays: sanakit train {name} --export-step STEP
"""


@dataclass(frozen=True, kw_only=True)
class LoraChoice:
    """The decisions of a starter config; see `TrainConfig`."""

    base: str
    size: int
    square: bool
    batch: int
    steps: int
    rank: int


def choose_lora(items: Sequence[Item], gpu: bool) -> LoraChoice:
    """Choose for a set. gpu: whether there is one; without it the model that ships is taken, which is small.

    Raises DataError for a set without pictures.
    """
    if not items:
        raise DataError("there are no pictures to learn from")
    count = len(items)
    base = fitting_base(median(min(item.width, item.height) for item in items), gpu)
    batch = 2 ** (min(4, count).bit_length() - 1)
    return LoraChoice(
        base=base, size=BASES[base], square=sum(map(is_square, items)) >= 0.8 * count, batch=batch,
        steps=max(_FEWEST, min(_MOST, round(_SEEN * count / batch, -1))), rank=16 if count < _MANY else 32,
    )  # fmt: skip


def lora_starter(pictures: PictureSet, name: str, run: Path, gpu: bool) -> str:
    """Return the config as commented YAML. name: of its file. run: folder of the run. Raises DataError."""
    items = list(pictures)
    chosen = choose_lora(items, gpu)
    side, toybox = median(min(item.width, item.height) for item in items), chosen.base == "toybox"
    return _TEXT.format(
        count=len(items), path=pictures.path, name=shlex.quote(name), run=quoted(run),
        shell_run=shlex.quote(str(run)), yaml_path=quoted(pictures.path), base=chosen.base, size=chosen.size,
        square=str(chosen.square).lower(), why_base=why_base(chosen.base), rank=chosen.rank,
        why_square="most are square" if chosen.square else "each is cut to the nearest of the trained aspect ratios",
        prompt=_prompt(items), batch=chosen.batch, steps=chosen.steps, classes=max(20, min(200, 10 * len(items))),
        class_prompt="a sphere, a cube, a cone" if toybox else "a picture",
        times=chosen.steps * chosen.batch / len(items), every=chosen.steps // 5,
        why_size=f"the shorter sides are {side:.0f} px in the middle, and {chosen.base} knows {chosen.size} px",
        rate="1.0e-3" if toybox else "1.0e-4",
        why_rate="a small network takes a large one" if toybox else "if nothing is learnt, 2.0e-4",
        prompts="\n".join(f"    - {quoted(text)}" for text in _shown(pictures)),
    )  # fmt: skip


def _prompt(items: Sequence[Item]) -> str:
    """Return the line about pictures without a caption; empty if all have one."""
    silent = sum(not item.captions for item in items)
    if not silent:
        return ""
    whose = "all pictures" if silent == len(items) else f"the {silent} pictures without one"
    return f"  prompt: {quoted(PROMPT)}   # the caption of {whose}: say what they show, with a rare word as its name\n"


def _shown(pictures: PictureSet) -> list[str]:
    """Captions of the set, or what stands for them."""
    return sample_prompts(pictures) if pictures.captioned else [PROMPT]
