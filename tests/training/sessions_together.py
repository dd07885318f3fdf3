"""Run by torchrun in `test_two_processes.py`: small runs on two processes, one after another; rank 0 writes losses.

Arguments: a folder and the changes of its run as JSON, for each.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

from sanakit.training import StepReport
from sanakit.training.session import Session
from tests.training.sets import config


def main() -> None:
    torch.set_num_threads(1)
    for folder, changes in zip(sys.argv[1::2], sys.argv[2::2], strict=True):
        session = Session(config(Path(folder), **json.loads(changes)), device="cpu")
        losses = [event.losses["loss"] for event in session.events() if isinstance(event, StepReport)]
        if session.world.leads:
            (Path(folder) / "losses.json").write_text(json.dumps(losses))


if __name__ == "__main__":
    main()
