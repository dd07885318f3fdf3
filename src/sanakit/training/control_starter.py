"""A first config of the task "control" for a set of pictures: `sanakit train --new FOLDER --task control`."""

from __future__ import annotations

import shlex
from pathlib import Path
from statistics import median

from sanakit.data import PictureSet
from sanakit.training.starter import choose, quoted, why_base
from sanakit.training.tasks.control_pictures import BESIDE

_COPIES = {"toybox": 5}
_USUAL = 7  # as published

_TEXT = """# A ControlNet for the {count} pictures of {path}, made by `sanakit train --new --task control`.
#
#   sanakit train {name} --plan       # what it will do: memory, time, disk, and what looks wrong
#   sanakit train {name}              # Ctrl-C saves and ends; --resume goes on
#   sanakit annotate PICTURE --kind canny --out edges.png
#   sanakit generate "..." --model {base} --control {shell_run}/control:edges.png
#
# docs/control.md says more. Every key with its default and its meaning: sanakit train --keys

task: control
folder: {run}   # checkpoints, journal, previews and the finished ControlNet
data:
  path: {yaml_path}
  square: {square}   # {why_square}
  held: {held}   # kept out of training, to measure with (validate)
  captions: {{dropout: 0.1}}   # share seen without their caption: more of it trusts the control more

# {why_base}
base: {base}   # frozen

control:
  # {why_annotator}
  annotator: {annotator}
  copies: {copies}   # blocks of the base that are copied; fewer are faster and weaker
  dropout: 0.05   # share seen without their control

batch: {batch}   # pictures of a step; if memory is short: accumulate: 2, or recompute: 1
phases:
  # {why_size};
  # each of {usable} pictures is seen about {times:.0f} times
  - {{steps: {steps}, size: {size}}}

optimizer: {{name: adamw, lr: {rate}}}   # {why_rate}
schedule: {{cooldown: 0.2}}   # the rate rises over a tenth of the run, and falls to 0 over its last fifth
clip: 1.0   # largest norm of the gradient; 0 for no limit
ema: {ema}   # decay of the averaged weights, which the finished ControlNet has

validate: {validate}   # steps between measurements on what is held out; 0 for never
preview: {{every: {every}}}   # steps; each control picture beside what is drawn from it
saving: {{minutes: 10}}
"""


def control_starter(pictures: PictureSet, name: str, run: Path, gpu: bool) -> str:
    """Return the config as commented YAML. name: of its file. run: folder of the run. Raises DataError."""
    paired = any(item.key.endswith(BESIDE) for item in pictures)
    rows = [row for row, item in enumerate(pictures) if not item.key.endswith(BESIDE)]
    items = [pictures[row] for row in rows]
    chosen = choose(items, gpu)
    side, toybox = median(min(item.width, item.height) for item in items), chosen.base == "toybox"
    every = max(1, chosen.steps // 10)
    return _TEXT.format(
        count=len(items), path=pictures.path, name=shlex.quote(name), run=quoted(run), shell_run=shlex.quote(str(run)),
        yaml_path=quoted(pictures.path), square=str(chosen.square).lower(), held=chosen.held, base=chosen.base,
        why_square="most are square" if chosen.square else "each is cut to the nearest of the trained aspect ratios",
        why_base=why_base(chosen.base), annotator="files" if paired else "canny",
        why_annotator="control pictures lie beside the pictures, as x.control.png" if paired
        else "control pictures are made of the pictures: canny, soft, tile, grid, grey, mask, or by a model",
        copies=_COPIES.get(chosen.base, _USUAL), batch=chosen.batch, usable=chosen.usable,
        times=chosen.steps * chosen.batch / chosen.usable, steps=chosen.steps, size=chosen.size,
        why_size=f"the shorter sides are {side:.0f} px in the middle, and {chosen.base} knows {chosen.size} px",
        rate="7.0e-4" if toybox else "1.0e-4",
        why_rate="a small network takes a large one" if toybox else "what it begins as is a trained network",
        ema=0.999 if chosen.steps >= 2000 else 0.99, validate=every if chosen.held else 0, every=every,
    )  # fmt: skip
