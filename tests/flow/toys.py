"""Small velocities and diffusers loops that the solver tests compare on."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import torch
from diffusers import DPMSolverMultistepScheduler, FlowMatchEulerDiscreteScheduler
from torch import Tensor

from sanakit.flow import Denoise, Solver, drive

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "flow.json").read_text())


def seeded_noise(seeds: list[int], shape: tuple[int, ...]) -> Tensor:
    """Standard normal noise [B, *shape], a generator per sample."""
    rows = [torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    return torch.stack(rows)


def velocity(x: Tensor, time: float) -> Tensor:
    """The toy velocity of the golden loops, sin(3x) + t/1000, at model time t."""
    return torch.sin(3 * x) + time / 1000


def start() -> Tensor:
    """The toy state of the golden loops [1, 4, 2, 2]."""
    return torch.linspace(-1, 1, 16).reshape(1, 4, 2, 2)


def dpm_scheduler(shift: float, steps: int, **changes: object) -> DPMSolverMultistepScheduler:
    """The scheduler of the published checkpoints, its steps set."""
    settings = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": shift, **changes}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # diffusers hands a tensor to numpy the old way
        scheduler = DPMSolverMultistepScheduler(**settings)
        scheduler.set_timesteps(steps)
    return scheduler


def euler_scheduler(shift: float, steps: int) -> FlowMatchEulerDiscreteScheduler:
    """Diffusers' Euler scheduler of the flow, its steps set."""
    scheduler = FlowMatchEulerDiscreteScheduler(shift=shift)
    scheduler.set_timesteps(steps)
    return scheduler


def diffusers_loop(scheduler: DPMSolverMultistepScheduler | FlowMatchEulerDiscreteScheduler) -> list[Tensor]:
    """The states that diffusers goes through on the toy velocity, from the toy state."""
    x, states = start(), []
    for t in scheduler.timesteps:
        x = scheduler.step(velocity(x, float(t)), t, x, return_dict=False)[0]
        states.append(x)
    return states


def gap(ours: Tensor, theirs: Tensor) -> float:
    """The largest difference, relative to the largest value."""
    return float((ours - theirs).abs().max() / theirs.abs().max())


def sample(solver: Solver, denoise: Denoise) -> Tensor:
    """Drive a solver to its end: the sample."""
    return list(drive(solver, denoise))[-1].x


class GaussianFlow:
    """Data N(mean, std^2) in every element: the velocity and the solution of its flow are known exactly."""

    def __init__(self, mean: float = 0.7, std: float = 0.4) -> None:
        self.mean, self.std = mean, std

    def spread(self, s: float) -> float:
        return float(((1 - s) ** 2 * self.std**2 + s**2) ** 0.5)

    def denoise(self, x: Tensor, s: float, step: int) -> Tensor:
        slope = (s - (1 - s) * self.std**2) / self.spread(s) ** 2
        return slope * (x - (1 - s) * self.mean) - self.mean

    def solve(self, x: Tensor, begin: float, end: float) -> Tensor:
        z = (x - (1 - begin) * self.mean) / self.spread(begin)
        return (1 - end) * self.mean + self.spread(end) * z
