"""Run by torchrun in `test_sprint_task.py`: a distillation on two processes; rank 0 writes its losses.

Arguments: the teacher, the set, its cache, a folder, the mode.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

from sanakit.training import StepReport
from sanakit.training.session import Session
from tests.training.sets import config
from tests.training.test_sprint_task import alone


def main() -> None:
    torch.set_num_threads(1)
    teacher, pictures, cache, folder = map(Path, sys.argv[1:5])
    changes = alone(teacher, pictures, cache) | {"parallel": sys.argv[5]}
    session = Session(config(folder, **changes), device="cpu")
    losses = [event.losses["loss"] for event in session.events() if isinstance(event, StepReport)]
    if session.world.leads:
        (folder / "losses.json").write_text(json.dumps(losses))


if __name__ == "__main__":
    main()
