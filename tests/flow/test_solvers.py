"""The table of solvers: each row runs, the model time is right, and one network can serve many solvers at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from sanakit import flow
from sanakit.base import ConfigError, RequestError
from sanakit.flow import SOLVERS, Clock, Query, Schedule, ShiftedTimes, Solver, drive
from sanakit.flow.dpm import dpm
from sanakit.flow.euler import euler
from sanakit.pipeline import ImageRequest
from tests.flow.toys import GaussianFlow, sample, seeded_noise

SCHEDULE = Schedule(shift=3.0)


def fresh(step: int) -> Tensor:
    return seeded_noise([10 + step, 20 + step], (4, 3, 3))


def solver(name: str, x: Tensor, steps: int = 20, schedule: Schedule = SCHEDULE) -> Solver:
    row = SOLVERS[name]
    return row.run(x, row.sigmas(schedule, steps), schedule, fresh)


@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.parametrize("steps", [1, 2, 5, 20])
def test_every_solver_runs_on_its_noise_levels(name: str, steps: int) -> None:
    sigmas = SOLVERS[name].sigmas(SCHEDULE, steps)
    assert len(sigmas) == steps + 1
    assert sigmas[-1] == 0
    states = list(drive(solver(name, seeded_noise([0, 1], (4, 3, 3)), steps), GaussianFlow().denoise))
    assert [state.step for state in states] == list(range(steps))
    assert states[-1].x.isfinite().all()
    torch.testing.assert_close(states[-1].x, states[-1].x0)


def test_rows_stand_for_the_functions() -> None:
    x, denoise, times = seeded_noise([3], (4, 2, 2)), GaussianFlow().denoise, ShiftedTimes(3.0)
    for order in (1, 2, 3):
        wanted = sample(dpm(x, times.sigmas(20), order), denoise)
        assert torch.equal(sample(solver(f"dpm{order}", x), denoise), wanted)
    assert torch.equal(sample(solver("euler", x), denoise), sample(euler(x, times.euler_sigmas(20)), denoise))


def test_the_schedule_chooses_formula_shift_and_last_level() -> None:
    x, denoise = seeded_noise([3], (4, 2, 2)), GaussianFlow().denoise
    heun = replace(SCHEDULE, solver_type="heun")
    wanted = sample(dpm(x, ShiftedTimes(3.0).sigmas(9), 2, heun), denoise)
    assert torch.equal(sample(solver("dpm2", x, 9, heun), denoise), wanted)
    assert not torch.equal(sample(solver("dpm2", x, 9), denoise), wanted)
    short = replace(SCHEDULE, final="sigma_min")
    assert SOLVERS["dpm2"].sigmas(short, 9)[-1] == pytest.approx(0.01, rel=1e-3)
    assert SOLVERS["euler"].sigmas(short, 9)[-1] == 0
    for name, shifted in (("dpm3", True), ("euler", True), ("scm", False)):
        levels = [SOLVERS[name].sigmas(Schedule(shift=shift), 4)[1] for shift in (1.0, 6.0)]
        assert (levels[0] < levels[1]) is shifted


def test_solvers_agree_on_where_the_flow_ends() -> None:
    x, model = seeded_noise([3], (4, 2, 2)), GaussianFlow()
    for name, bound in (("dpm1", 0.02), ("dpm2", 2e-3), ("dpm3", 2e-3), ("euler", 0.02)):
        result = sample(solver(name, x, 200), model.denoise)
        torch.testing.assert_close(result, model.solve(x, 1.0, 0.0), rtol=0, atol=bound)


def test_mistakes_are_refused_before_the_network_runs() -> None:
    for row in SOLVERS.values():
        with pytest.raises(RequestError, match="at least 1"):
            row.sigmas(SCHEDULE, 0)
    with pytest.raises(RequestError, match="noise"):
        next(SOLVERS["scm"].run(torch.ones(1, 2), [1.0, 0.5, 0.0], SCHEDULE, None))
    with pytest.raises(ConfigError, match="shift"):
        SOLVERS["dpm2"].sigmas(Schedule(shift=-3.0), 20)


def test_requests_know_the_table() -> None:
    for name in SOLVERS:
        assert ImageRequest(prompt="", solver=name).solver == name
    with pytest.raises(RequestError, match="dpm1, dpm2, dpm3, euler, scm"):
        ImageRequest(prompt="", solver="ddim")


@pytest.mark.parametrize(
    "schedule", [Schedule(), Schedule(order=1), Schedule(kind="euler"), Schedule(kind="scm")]
)
def test_every_schedule_names_a_solver_that_suits_it(schedule: Schedule) -> None:
    assert SOLVERS[schedule.solver].mismatch(schedule) is None


def test_a_solver_of_the_other_kind_is_remarked() -> None:
    assert "scm is the sampler of Sprint" in str(SOLVERS["scm"].mismatch(Schedule()))
    assert "isn't a sampler for Sprint" in str(SOLVERS["euler"].mismatch(Schedule(kind="scm")))


class Network:
    """A velocity that depends on the noise level of each sample [B]; counts its forwards."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        self.sizes.append(len(x))
        return torch.sin(2 * x) + sigma[:, None, None, None]


def batched(solvers: list[Solver], network: Callable[[Tensor, Tensor], Tensor]) -> list[Tensor]:
    """Answer solvers, each at its own step, from one forward per round until all have their samples."""
    queries: dict[int, Query] = {index: next(each) for index, each in enumerate(solvers)}
    samples: dict[int, Tensor] = {}
    while queries:
        x = torch.cat([query.x for query in queries.values()])
        sigma = torch.tensor([query.sigma for query in queries.values()])
        for index, velocity in zip(list(queries), network(x, sigma).split(1), strict=True):
            try:
                queries[index] = solvers[index].send(velocity)
            except StopIteration as end:
                samples[index] = end.value
                del queries[index]
    return [samples[index] for index in range(len(solvers))]


def test_one_batched_network_serves_solvers_of_different_kinds_and_lengths() -> None:
    requests = [("dpm2", 5, 3.0), ("euler", 7, 6.0), ("scm", 2, 1.0), ("dpm3", 4, 1.0)]

    def make(seed: int, name: str, steps: int, shift: float) -> Solver:
        schedule, row = Schedule(shift=shift), SOLVERS[name]
        noise = seeded_noise([seed + 100], (4, 2, 2))
        sigmas = row.sigmas(schedule, steps)
        return row.run(seeded_noise([seed], (4, 2, 2)), sigmas, schedule, lambda step: noise)

    network = Network()
    together = batched([make(seed, *request) for seed, request in enumerate(requests)], network)
    assert network.sizes == [4, 4, 3, 3, 2, 1, 1]
    for seed, (request, found) in enumerate(zip(requests, together, strict=True)):
        alone = sample(make(seed, *request), lambda x, sigma, step: network(x, torch.tensor([sigma])))
        assert torch.equal(found, alone)


def test_model_time_is_cut_or_kept_or_the_level_itself() -> None:
    sigma = float(ShiftedTimes(3.0).sigmas(20)[1])
    assert Clock(integer=True)(sigma, 1) == 982.0
    assert Clock()(sigma, 1) == pytest.approx(982.41949, abs=1e-4)
    assert Clock(scale=1.0)(sigma, 1) == sigma


@pytest.mark.parametrize("integer", [True, False])
def test_only_the_dpm_solver_cuts_its_own_times(integer: bool) -> None:
    assert SOLVERS["dpm2"].clock(SCHEDULE, 20, integer)(0.5, 1) == 982.0
    assert SOLVERS["euler"].clock(SCHEDULE, 20, integer)(0.98241949, 1) == (982.0 if integer else 982.41949)


@pytest.mark.parametrize("steps", [5, 20, 28, 50])
def test_model_time_agrees_with_the_exact_integers_on_usual_schedules(steps: int) -> None:
    times, clock = ShiftedTimes(3.0), Clock(integer=True)
    assert [clock(sigma, 0) for sigma in times.sigmas(steps)[:-1].tolist()] == times.timesteps(steps)


def test_public_names_exist_once() -> None:
    assert len(set(flow.__all__)) == len(flow.__all__)
    for name in flow.__all__:
        assert getattr(flow, name) is not None
