"""The flow, which knows no network: paths, times, guidance and solvers.

path        points and velocities between data and noise    times      noise levels, and the shift of times
densities   the times that training draws                   schedule   how a checkpoint is sampled, its model time
sampling    what a solver asks and who answers              solvers    the table of solvers
guidance    CFG, its interval, PAG                          dpm, euler, scm   the solvers, a file each
inpainting  parts of a sample that stay                     flow_edit  the difference of two velocities
inversion   the noise that a sample comes from
"""

from sanakit.flow.densities import DensityName, TimeDensity, draw_times, even_times
from sanakit.flow.flow_edit import FlowEdit, PairQuery, PairWalk, drive_pairs, flow_edit
from sanakit.flow.guidance import Branch, Guidance
from sanakit.flow.inpainting import keep_source, last_levels
from sanakit.flow.inversion import ITERATIONS, edit_by_inversion
from sanakit.flow.path import LinearPath
from sanakit.flow.sampling import Denoise, Noise, Query, Solver, State, Walk, drive
from sanakit.flow.schedule import Clock, Schedule
from sanakit.flow.scm import lowered_sigmas
from sanakit.flow.solvers import SOLVERS, SolverSpec
from sanakit.flow.times import ShiftedTimes

__all__ = [
    "ITERATIONS",
    "SOLVERS",
    "Branch",
    "Clock",
    "Denoise",
    "DensityName",
    "FlowEdit",
    "Guidance",
    "LinearPath",
    "Noise",
    "PairQuery",
    "PairWalk",
    "Query",
    "Schedule",
    "ShiftedTimes",
    "Solver",
    "SolverSpec",
    "State",
    "TimeDensity",
    "Walk",
    "draw_times",
    "drive",
    "drive_pairs",
    "edit_by_inversion",
    "even_times",
    "flow_edit",
    "keep_source",
    "last_levels",
    "lowered_sigmas",
]
