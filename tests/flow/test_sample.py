"""The table of solvers: each row runs, names are checked, and the model clock is right."""

from __future__ import annotations

import pytest
import torch

from sanakit import flow
from sanakit.base import ConfigError, RequestError
from sanakit.flow import SOLVERS, ModelTime, ShiftedTimes, dpm, euler, iterate_sample, sample, times_for
from tests.flow.toys import GaussianFlow, seeded_noise


def fresh(step: int) -> torch.Tensor:
    return seeded_noise([10 + step, 20 + step], (4, 3, 3))


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("steps", [1, 2, 5, 20])
def test_every_solver_runs_on_its_grid(solver: str, steps: int) -> None:
    x = seeded_noise([0, 1], (4, 3, 3))
    nodes = times_for(solver, 3.0, steps)
    assert nodes.shape == (steps + 1,)
    assert nodes[-1] == 0
    arguments = {"solver": solver, "steps": steps, "noise": fresh}
    states = list(iterate_sample(GaussianFlow().denoise, x, **arguments))  # type: ignore[arg-type]
    assert [state.index for state in states] == list(range(steps))
    assert states[-1].sigma == 0
    result = sample(GaussianFlow().denoise, x, **arguments)  # type: ignore[arg-type]
    assert torch.equal(result, states[-1].x)
    assert result.isfinite().all()


def test_names_stand_for_the_functions() -> None:
    x, denoise, times = seeded_noise([3], (4, 2, 2)), GaussianFlow().denoise, ShiftedTimes(3.0)
    for order in (1, 2, 3):
        assert torch.equal(
            sample(denoise, x, solver=f"dpm{order}"), dpm(denoise, x, times.grid(20), order=order)
        )
    heun = sample(denoise, x, steps=9, kind="heun")
    assert torch.equal(heun, dpm(denoise, x, times.grid(9), kind="heun"))
    assert not torch.equal(heun, sample(denoise, x, steps=9))
    assert torch.equal(sample(denoise, x, solver="euler"), euler(denoise, x, times.euler_grid(20)))


def test_own_nodes_replace_the_grid() -> None:
    x, denoise = seeded_noise([3], (4, 2, 2)), GaussianFlow().denoise
    assert torch.equal(
        sample(denoise, x, nodes=[0.8, 0.3, 0.0], solver="dpm1"), dpm(denoise, x, [0.8, 0.3, 0.0], order=1)
    )


def test_solvers_agree_on_where_the_flow_ends() -> None:
    x, model = seeded_noise([3], (4, 2, 2)), GaussianFlow()
    for solver, bound in (("dpm1", 0.02), ("dpm2", 2e-3), ("dpm3", 2e-3), ("euler", 0.02)):
        result = sample(model.denoise, x, solver=solver, steps=200)
        torch.testing.assert_close(result, model.solve(x, 1.0, 0.0), rtol=0, atol=bound)


def test_callback_sees_every_state() -> None:
    seen: list[int] = []
    sample(GaussianFlow().denoise, torch.ones(1, 2), steps=3, callback=lambda state: seen.append(state.index))
    assert seen == [0, 1, 2]


def test_mistakes_are_told_before_the_network_runs() -> None:
    x = torch.ones(1, 2)
    with pytest.raises(RequestError, match="unknown solver 'ddim'.*dpm1, dpm2, dpm3, euler, scm"):
        iterate_sample(GaussianFlow().denoise, x, solver="ddim")
    with pytest.raises(RequestError, match="unknown solver"):
        times_for("ddim", 3.0, 20)
    for solver in SOLVERS:
        with pytest.raises(RequestError, match="at least 1"):
            times_for(solver, 3.0, 0)
    with pytest.raises(RequestError, match="noise"):
        iterate_sample(GaussianFlow().denoise, x, solver="scm", steps=2)
    with pytest.raises(ConfigError, match="shift"):
        times_for("dpm2", -3.0, 20)


def test_model_time_is_cut_or_kept_or_the_level_itself() -> None:
    sigma = float(ShiftedTimes(3.0).grid(20)[1])
    assert ModelTime(integer=True)(sigma) == 982.0
    assert ModelTime(integer=False)(sigma) == pytest.approx(982.41949, abs=1e-4)
    assert ModelTime(integer=False, scale=1.0)(sigma) == sigma


@pytest.mark.parametrize("steps", [5, 20, 28, 50])
def test_model_time_agrees_with_the_exact_integers_on_usual_grids(steps: int) -> None:
    times, clock = ShiftedTimes(3.0), ModelTime(integer=True)
    assert [clock(sigma) for sigma in times.grid(steps)[:-1].tolist()] == times.timesteps(steps)


def test_public_names_exist_once() -> None:
    assert len(set(flow.__all__)) == len(flow.__all__)
    for name in flow.__all__:
        assert getattr(flow, name) is not None
