"""ControlNets at work: planned with a request, loaded beside the transformer, asked at every step that they steer.

Letters: B branches of a step, C latent channels, h/w latent position, N tokens, D width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sanakit.adapt.runner import Runner, unwrapped
from sanakit.base.sentinel import run_finite
from sanakit.base.sizes import Size
from sanakit.flow import Branch, Clock
from sanakit.pipeline.control import Control
from sanakit.transformer import ControlNet, TextKV, placed
from sanakit.weights import ControlSpec, ModelSpec, read_control_spec

Branches = tuple[Branch, ...]
Network = ControlNet | Runner


@dataclass(frozen=True, kw_only=True)
class PlannedControl:
    """A control of a request, what its ControlNet is, the steps that it steers, and the times that it reads."""

    control: Control
    spec: ControlSpec
    steps: range
    clock: Clock


def plan_controls(
    spec: ModelSpec, controls: Sequence[Control], steps: int, clock: Clock
) -> tuple[PlannedControl, ...]:
    """Read what the ControlNets of a request are. clock: of the transformer.

    Raises ConfigError or WeightsError, before anything is loaded, for one that doesn't fit the model.
    """
    found = []
    for control in controls:
        assert control.network.path is not None  # `require_inputs` has asked for it
        read = read_control_spec(control.network.path, spec.transformer)
        times = _clock(read.config.backbone.guidance_embed, spec.transformer.guidance_embed, clock)
        found.append(PlannedControl(control=control, spec=read, steps=control.steps(steps), clock=times))
    return tuple(found)


def _clock(own: bool, base: bool, clock: Clock) -> Clock:
    """Return the transformer's clock, unless only one of both networks is Sprint's, which reads noise levels."""
    return clock if own == base else Clock(scale=1.0) if own else Clock()


def control_notes(controls: Sequence[PlannedControl], steps: int) -> list[str]:
    """Sentences about controls that have no effect."""
    return [
        f"the control {each.control.picture.name} has no effect: none of {steps} step{'s' * (steps > 1)} lies between "
        f"start {each.control.start:g} and end {each.control.end:g}."
        for each in controls
        if not each.steps
    ]


def control_pixels(control: Control, size: Size) -> Tensor:
    """Return the picture of a control as [1, 3, H, W] float32 in -1..1, at the size that is drawn."""
    levels = np.asarray(control.fitted(size.width, size.height), dtype=np.float32)
    return torch.from_numpy(levels).permute(2, 0, 1)[None] / 127.5 - 1


@dataclass(frozen=True, kw_only=True, eq=False)
class LoadedControl:
    """A loaded ControlNet, and the latent of its control picture [1, C, h, w] float32."""

    planned: PlannedControl
    network: Network
    latent: Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class Steering(LoadedControl):
    """A loaded ControlNet for one image. text_kv: its own keys and values of each set of branches."""

    text_kv: Mapping[Branches, TextKV]

    def residuals(
        self, x: Tensor, sigma: float, step: int, branches: Branches, guidance: float
    ) -> dict[int, Tensor]:
        """Scaled residuals [B, N, D] at x [B, C, h, w] by the block behind which they go; none past its steps.

        Raises NumericsError for NaN or Inf.
        """
        planned = self.planned
        if step not in planned.steps or not planned.control.scale:
            return {}
        config = planned.spec.config
        time = torch.full((1,), planned.clock(sigma, step), device=x.device)
        scale = torch.full((1,), guidance, device=x.device) if config.backbone.guidance_embed else None

        def run() -> Tensor:
            found: Tensor = self.network(x, time, self.text_kv[branches], self.latent, guidance=scale)
            return found

        found = run_finite(unwrapped(self.network), run, f"control step {step + 1}")
        return placed(config, found * planned.control.scale)


def steer(
    controls: Sequence[Steering], x: Tensor, sigma: float, step: int, branches: Branches, guidance: float
) -> dict[int, Tensor] | None:
    """Sum all residuals by blocks; None if nothing steers this step. Arguments as of `Steering.residuals`."""
    total: dict[int, Tensor] = {}
    for control in controls:
        for block, residual in control.residuals(x, sigma, step, branches, guidance).items():
            total[block] = total[block] + residual if block in total else residual
    return total or None
