"""Two processes that run jobs as one, as under `torchrun`; started once, as importing torch costs more than a job.

`tests/cli/test_train.py` starts a run by torchrun itself.
"""

from __future__ import annotations

import multiprocessing
import os
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import torch
import torch.distributed as dist

from sanakit.training import StepReport
from sanakit.training.config import TrainConfig
from sanakit.training.schema import build
from sanakit.training.session import Session
from tests.oracles.ports import free_port

PATIENCE = 600
"""Seconds for a job, on a machine that has much else to do."""


class Pair:
    """`pair(job, *arguments)` calls a function of a module in both processes; jobs are given what pickle takes."""

    def __init__(self) -> None:
        self._ends: list[Connection] = []
        self._processes: list[Any] = []

    def __call__(self, job: Callable[..., Any], *arguments: Any) -> list[Any]:
        """What each process returns. Raises AssertionError with what one said; both are started anew after that."""
        if not self._processes:
            self._start()
        try:
            port = free_port()
            for end in self._ends:
                end.send((port, job, arguments))
            assert all(end.poll(PATIENCE) for end in self._ends), f"{job.__name__} does not end"
            answers = [end.recv() for end in self._ends]
            faults = [fault for _, fault in answers if fault]
            assert not faults, "\n".join(faults)
        except BaseException:
            self.stop()
            raise
        return [result for result, _ in answers]

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        for rank in (0, 1):
            here, there = context.Pipe()
            process = context.Process(target=_serve, args=(rank, there), daemon=True)
            process.start()
            there.close()
            self._ends.append(here)
            self._processes.append(process)

    def stop(self) -> None:
        """End both."""
        for process in self._processes:
            process.kill()
            process.join()
        for end in self._ends:
            end.close()
        self._ends, self._processes = [], []


def losses_of(values: dict[str, Any]) -> list[float]:
    """A job: train by the config of these values; the losses that this process reported."""
    session = Session(build(TrainConfig, values), device="cpu")
    return [event.losses["loss"] for event in session.events() if isinstance(event, StepReport)]


def _serve(rank: int, end: Connection) -> None:
    torch.set_num_threads(1)
    while True:
        try:
            port, job, arguments = end.recv()
        except EOFError:
            return
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        os.environ |= place | {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
        try:
            end.send((job(*arguments), None))
        except BaseException:
            end.send((None, traceback.format_exc()))
        finally:
            if dist.is_initialized():  # so that the other one does not wait for a process that failed
                dist.destroy_process_group()
