"""The flow, which knows no network: paths, times, predictions, guidance and solvers.

path         points and targets between data and noise         times        sampling grids and the shift of times
densities    where training looks
prediction   velocity, x0, noise; linear and trig flow         guidance     CFG, its interval, PAG
solver       what solvers share: Denoise, State                euler, dpm   solvers of the flow
consistency  the SANA-Sprint sampler                           sample       the table of solvers by name

`denoise(x, sigma, index) -> velocity` is all that is asked of a model.
"""

from sanakit.flow.consistency import ANGLE_MAX, ANGLE_MIDDLE, Noise, angles, check_angles, iterate_scm, scm
from sanakit.flow.densities import DensityName, TimeDensity, draw_times, even_times
from sanakit.flow.dpm import Ending, Kind, dpm, iterate_dpm, order_at
from sanakit.flow.euler import euler, iterate_euler
from sanakit.flow.guidance import Branch, Guided, Predict, cfg, pag, pag_scale_at
from sanakit.flow.path import (
    LinearPath,
    Path,
    Time,
    TrigPath,
    angle_from_time,
    broadcast_time,
    linear_scale,
    time_from_angle,
)
from sanakit.flow.prediction import (
    TrigDenoise,
    noise_from_velocity,
    trig_from_velocity,
    trigflow,
    velocity_from_noise,
    velocity_from_trig,
    velocity_from_x0,
    x0_from_noise,
    x0_from_trig,
    x0_from_velocity,
)
from sanakit.flow.sample import (
    SOLVERS,
    ModelTime,
    Run,
    Solver,
    iterate_sample,
    sample,
    solver_named,
    times_for,
)
from sanakit.flow.solver import Callback, Denoise, Nodes, State, check_sigmas, last_state
from sanakit.flow.times import SIGMA_MIN, TRAIN_STEPS, ShiftedTimes, check_steps

__all__ = [
    "Ending",
    "ANGLE_MAX",
    "ANGLE_MIDDLE",
    "SIGMA_MIN",
    "SOLVERS",
    "TRAIN_STEPS",
    "Branch",
    "Callback",
    "Denoise",
    "DensityName",
    "Guided",
    "Kind",
    "LinearPath",
    "ModelTime",
    "Nodes",
    "Noise",
    "Path",
    "Predict",
    "Run",
    "ShiftedTimes",
    "Solver",
    "State",
    "Time",
    "TimeDensity",
    "TrigDenoise",
    "TrigPath",
    "angle_from_time",
    "angles",
    "broadcast_time",
    "cfg",
    "check_angles",
    "check_sigmas",
    "check_steps",
    "dpm",
    "draw_times",
    "euler",
    "even_times",
    "iterate_dpm",
    "iterate_euler",
    "iterate_sample",
    "iterate_scm",
    "last_state",
    "linear_scale",
    "noise_from_velocity",
    "order_at",
    "pag",
    "pag_scale_at",
    "sample",
    "scm",
    "solver_named",
    "time_from_angle",
    "times_for",
    "trig_from_velocity",
    "trigflow",
    "velocity_from_noise",
    "velocity_from_trig",
    "velocity_from_x0",
    "x0_from_noise",
    "x0_from_trig",
    "x0_from_velocity",
]
