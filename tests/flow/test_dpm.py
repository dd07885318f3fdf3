"""DPM-Solver++: diffusers' trajectory, the written numbers, its orders, and the traps it avoids."""

from __future__ import annotations

import math
from typing import Any, Literal

import pytest
import torch
from torch import Tensor

from sanakit.base import RequestError
from sanakit.flow import Schedule, ShiftedTimes, State, drive
from sanakit.flow.dpm import dpm, order_at
from sanakit.flow.times import SIGMA_MIN
from tests.flow.toys import GOLDEN, GaussianFlow, diffusers_loop, dpm_scheduler, gap, sample, start, velocity
from tests.oracles.bounds import within

Kind = Literal["midpoint", "heun"]
BOUND = 1e-5
"""Reached: 1.7e-6 ending at zero, 4.6e-6 at sigma_min (diffusers computes its coefficients in float32)."""


def on_integer_clock(times: ShiftedTimes, steps: int) -> Any:
    clock = times.timesteps(steps)
    return lambda x, sigma, step: velocity(x, clock[step])


@pytest.mark.parametrize("order, kind", [(1, "midpoint"), (2, "midpoint"), (2, "heun"), (3, "midpoint")])
@pytest.mark.parametrize("shift", [1.0, 3.0, 6.0, 8.0])
def test_trajectory_equals_diffusers(shift: float, order: int, kind: Kind) -> None:
    times = ShiftedTimes(shift)
    for steps in (1, 2, 3, 4, 5, 7, 10, 13, 14, 15, 16, 20, 28, 33, 50):
        theirs = diffusers_loop(dpm_scheduler(shift, steps, solver_order=order, solver_type=kind))
        solver = dpm(start(), times.sigmas(steps), order, Schedule(solver_type=kind))
        ours = drive(solver, on_integer_clock(times, steps))
        for state, expected in zip(ours, theirs, strict=True):
            within("DPM-Solver++, every state", state.x, expected, BOUND)


@pytest.mark.parametrize("steps", [3, 14, 15, 20])
@pytest.mark.parametrize("order", [1, 2, 3])
def test_a_trajectory_that_ends_at_sigma_min_equals_diffusers(order: int, steps: int) -> None:
    scheduler = dpm_scheduler(3.0, steps, solver_order=order, final_sigmas_type="sigma_min")
    theirs = diffusers_loop(scheduler)
    times = ShiftedTimes(3.0)
    solver = dpm(start(), times.sigmas(steps, final=SIGMA_MIN), order)
    ours = sample(solver, on_integer_clock(times, steps))
    within("DPM-Solver++, last state", ours, theirs[-1], BOUND)


@pytest.mark.parametrize("lower", [True, False])
@pytest.mark.parametrize("euler", [True, False])
@pytest.mark.parametrize("final", [0.0, SIGMA_MIN])
def test_endings_equal_diffusers(lower: bool, euler: bool, final: float) -> None:
    times, kind = ShiftedTimes(3.0), "sigma_min" if final else "zero"
    for order in (2, 3):
        for steps in (2, 3, 14, 15, 20):
            scheduler = dpm_scheduler(
                3.0,
                steps,
                solver_order=order,
                final_sigmas_type=kind,
                lower_order_final=lower,
                euler_at_final=euler,
            )
            theirs = diffusers_loop(scheduler)
            schedule = Schedule(lower_order_final=lower, euler_at_final=euler)
            solver = dpm(start(), times.sigmas(steps, final=final), order, schedule)
            ours = drive(solver, on_integer_clock(times, steps))
            for state, expected in zip(ours, theirs, strict=True):
                within("DPM-Solver++, endings", state.x, expected, BOUND)


@pytest.mark.parametrize("final", ["zero", "sigma_min"])
@pytest.mark.parametrize(
    ("field", "value"),
    [("timestep_spacing", "trailing"), ("steps_offset", 1), ("lambda_min_clipped", -5.1), ("time_shift_type", "linear"),
     ("variance_type", "learned"), ("dynamic_thresholding_ratio", 0.5), ("sample_max_value", 2.0),
     ("beta_schedule", "scaled_linear"), ("beta_end", 0.5), ("beta_start", 0.001)],
)  # fmt: skip
def test_fields_that_are_read_past_change_nothing_in_diffusers(field: str, value: object, final: str) -> None:
    if final == "sigma_min" and field.startswith("beta"):
        pytest.skip("there they decide the last level, and are refused")
    usual, changed = (
        diffusers_loop(dpm_scheduler(3.0, 5, final_sigmas_type=final, **settings))
        for settings in ({}, {field: value})
    )
    assert all(torch.equal(a, b) for a, b in zip(usual, changed, strict=True))


@pytest.mark.parametrize("golden", GOLDEN["dpm"], ids=lambda g: f"order{g['order']}-{g['kind']}-{g['steps']}")
def test_written_numbers(golden: dict[str, Any]) -> None:
    times, steps = ShiftedTimes(3.0), golden["steps"]
    solver = dpm(start(), times.sigmas(steps), golden["order"], Schedule(solver_type=golden["kind"]))
    x = sample(solver, on_integer_clock(times, steps))
    torch.testing.assert_close(ends(x), torch.tensor(golden["values"]), rtol=0, atol=5e-6)


def test_written_numbers_with_sigma_min() -> None:
    times = ShiftedTimes(3.0)
    x = sample(dpm(start(), times.sigmas(20, final=SIGMA_MIN)), on_integer_clock(times, 20))
    torch.testing.assert_close(ends(x), torch.tensor(GOLDEN["dpm_sigma_min_20"]), rtol=0, atol=5e-6)


def ends(x: Tensor) -> Tensor:
    flat = x.flatten()
    return torch.cat([flat[:4], flat[-2:]])


def error(order: int, steps: int, kind: Kind = "midpoint") -> float:
    """The error on a Gaussian flow from 0.95 to 0.1 with even steps in lambda, in float32."""
    top, bottom = (math.log((1 - s) / s) for s in (0.95, 0.1))
    sigmas = [1 / (1 + math.exp(top + (bottom - top) * k / steps)) for k in range(steps + 1)]
    flow, x = GaussianFlow(), torch.linspace(-2, 2, 9)
    found = sample(dpm(x, sigmas, order, Schedule(solver_type=kind)), flow.denoise)
    return float((found - flow.solve(x, sigmas[0], sigmas[-1])).abs().max())


@pytest.mark.parametrize("order, kind, factor", [(1, "midpoint", 2), (2, "midpoint", 4), (2, "heun", 4)])
def test_halving_the_step_cuts_the_error_by_the_order(order: int, kind: Kind, factor: int) -> None:
    assert error(order, 32, kind) / error(order, 64, kind) == pytest.approx(factor, rel=0.15)


def test_higher_orders_are_nearer() -> None:
    assert error(3, 32) < error(2, 32) < 0.2 * error(1, 32)


def clean_of_degree(degree: int) -> Any:
    """A velocity whose clean prediction is lambda^degree, whatever x is."""

    def denoise(x: Tensor, sigma: float, step: int) -> Tensor:
        return (x - math.log((1 - sigma) / sigma) ** degree) / sigma

    return denoise


def exact(x: Tensor, begin: float, end: float, degree: int) -> Tensor:
    """x_end = (s_end/s_begin) x + s_end * integral of e^lambda lambda^degree, by its antiderivative."""
    low, high = (math.log((1 - s) / s) for s in (begin, end))
    inner = {1: lambda y: y - 1, 2: lambda y: y * y - 2 * y + 2}[degree]
    integral = math.exp(high) * inner(high) - math.exp(low) * inner(low)
    return end / begin * x + end * integral


@pytest.mark.parametrize("order, kind", [(2, "heun"), (3, "midpoint")])
def test_a_clean_sample_that_moves_linearly_in_lambda_is_followed_exactly(order: int, kind: Kind) -> None:
    sigmas = [0.9, 0.8, 0.65, 0.4, *long_tail()]
    solver = dpm(torch.ones(3), sigmas, order, Schedule(solver_type=kind))
    states = list(drive(solver, clean_of_degree(1)))
    for index in range(order - 1, 8):
        reached = exact(states[index - 1].x, sigmas[index], sigmas[index + 1], 1)
        torch.testing.assert_close(states[index].x, reached, rtol=1e-5, atol=1e-5)


def long_tail() -> list[float]:
    """More levels, so that the rules for short runs do not apply."""
    return [0.3 - 0.02 * k for k in range(14)]


def test_order_3_takes_half_the_curvature_as_published() -> None:
    sigmas = [0.9, 0.8, 0.65, 0.4]
    states = list(drive(dpm(torch.ones(1), [*sigmas, *long_tail()], 3), clean_of_degree(2)))
    low, high = (math.log((1 - s) / s) for s in sigmas[2:])
    h = high - low
    phi3 = (math.expm1(-h) / h + 1) / h - 0.5
    missing = -(1 - sigmas[3]) * phi3 * h * h  # the curvature term in full is twice this
    shortfall = exact(states[1].x, sigmas[2], sigmas[3], 2) - states[2].x
    torch.testing.assert_close(shortfall, torch.full((1,), missing), rtol=1e-4, atol=1e-5)


def test_first_clean_sample_is_exact_where_the_published_conversion_is_not() -> None:
    sigma = float(ShiftedTimes(3.0).sigmas(20)[0])
    x0, noise = torch.randn(2, 64, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    state, v = (1 - sigma) * x0 + sigma * noise, noise - x0

    def through_noise(x: Tensor, v: Tensor) -> Tensor:
        noise = (1 - sigma) * v + x
        return (x - sigma * noise) / (1 - sigma)

    seen = next(drive(dpm(state.float(), [sigma, 0.5]), lambda x, s, i: v.float()))
    assert gap(seen.x0.double(), x0) < 5e-7
    assert gap(through_noise(state.float(), v.float()).double(), x0) > 2e-5
    # A float32 state with a bf16 network loses only what bf16 says of v; the published form in bf16 loses all.
    seen = next(drive(dpm(state.float(), [sigma, 0.5]), lambda x, s, i: v.bfloat16()))
    assert gap(seen.x0.double(), x0) < 1e-2
    assert gap(through_noise(state.bfloat16(), v.bfloat16()).double(), x0) > 0.5


@pytest.mark.parametrize("steps", [501, 1000])
@pytest.mark.parametrize("shift", [3.0, 8.0])
def test_many_steps_work_and_start_at_the_first_level(steps: int, shift: float) -> None:
    asked: list[float] = []
    flow, levels = GaussianFlow(), ShiftedTimes(shift).sigmas(steps)

    def denoise(x: Tensor, sigma: float, step: int) -> Tensor:
        asked.append(sigma)
        return flow.denoise(x, sigma, step)

    x = torch.linspace(-2, 2, 9)
    result = sample(dpm(x, levels, order=3), denoise)
    assert asked == levels[:-1].tolist()
    torch.testing.assert_close(result, flow.solve(x, asked[0], 0.0), rtol=0, atol=2e-3)


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("steps", [1, 2, 20])
def test_the_last_state_is_the_last_clean_sample_itself(order: int, steps: int) -> None:
    levels = ShiftedTimes(3.0).sigmas(steps)
    states = list(drive(dpm(start(), levels, order), GaussianFlow().denoise))
    assert [state.step for state in states] == list(range(steps))
    assert torch.equal(states[-1].x, states[-1].x0)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_own_lists_may_start_at_one_or_below_and_end_above_zero(order: int) -> None:
    flow, x = GaussianFlow(), torch.linspace(-2, 2, 9)
    for begin, end in ((1.0, 0.0), (0.6, 0.0), (1.0, 0.2), (0.7, 0.2)):
        sigmas = torch.linspace(begin, end, 201)
        result = sample(dpm(x, sigmas, order), flow.denoise)
        torch.testing.assert_close(result, flow.solve(x, begin, end), rtol=0, atol=1e-2)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_a_sample_does_not_depend_on_its_batch(order: int) -> None:
    x = torch.randn(5, 3, 7, 3, generator=torch.Generator().manual_seed(0))
    levels = ShiftedTimes(3.0).sigmas(17)
    together = sample(dpm(x, levels, order), GaussianFlow().denoise)
    for k in range(5):
        assert torch.equal(
            together[k : k + 1], sample(dpm(x[k : k + 1], levels, order), GaussianFlow().denoise)
        )


def test_state_is_float32_and_the_input_is_left_alone() -> None:
    x = start().bfloat16()
    before = x.clone()
    solver = dpm(x, ShiftedTimes(3.0).sigmas(4))
    result = sample(solver, lambda x, s, i: velocity(x, 1000 * s).bfloat16())
    assert result.dtype is torch.float32
    assert torch.equal(x, before)


def test_whoever_drives_may_stop_between_steps() -> None:
    seen: list[State] = []
    for state in drive(dpm(start(), ShiftedTimes(3.0).sigmas(5)), GaussianFlow().denoise):
        seen.append(state)
        if state.step == 2:
            break
    assert [state.step for state in seen] == [0, 1, 2]


def test_orders_along_a_run() -> None:
    assert [order_at(k, 6, 3) for k in range(6)] == [1, 2, 3, 3, 2, 1]
    assert [order_at(k, 6, 2) for k in range(6)] == [1, 2, 2, 2, 2, 1]
    assert [order_at(k, 15, 3) for k in (0, 1, 2, 13, 14)] == [1, 2, 3, 3, 1]
    assert [order_at(k, 15, 3, to_zero=False) for k in (13, 14)] == [3, 3]
    assert [order_at(k, 14, 3, to_zero=False) for k in (12, 13)] == [2, 1]
    assert order_at(0, 1, 3) == 1


@pytest.mark.parametrize("order", [0, 4, "2", None])
def test_other_orders_are_refused_before_the_network_runs(order: Any) -> None:
    with pytest.raises(RequestError, match="must be 1, 2 or 3"):
        next(dpm(start(), [1.0, 0.0], order))


@pytest.mark.parametrize(
    "sigmas, message",
    [
        ([], "at least two"),
        ([0.5], "at least two"),
        ([0.5, 0.6], "must fall"),
        ([0.9, 0.5, 0.5, 0.0], "level 2 is 0.5 after 0.5"),
        ([1.1, 0.0], "between 1 and 0"),
        ([0.5, -0.1], "between 1 and 0"),
        ([float("nan"), 0.0], "between 1 and 0"),
    ],
)
def test_bad_lists_are_refused(sigmas: list[float], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        next(dpm(start(), sigmas))
