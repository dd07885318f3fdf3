"""diffusers' scheduler_config.json as the few values that SANA uses, both ways.

Three classes occur: the DPM-Solver of the base models, Euler of their fine-tunes, and SCM of Sprint.
Source: the constructors of diffusers 0.42.1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

from sanakit.base.echo import quoted
from sanakit.base.errors import ConfigError
from sanakit.flow import Schedule
from sanakit.weights.formats.fields import DIFFUSERS_VERSION, STRICT, Fields, UnknownFields

__all__ = ["CLASSES", "Schedule", "from_config", "to_config"]


CLASSES: dict[str, Literal["dpm", "euler", "scm"]] = {
    "DPMSolverMultistepScheduler": "dpm",
    "FlowMatchEulerDiscreteScheduler": "euler",
    "SCMScheduler": "scm",
}
_NAMES = {kind: name for name, kind in CLASSES.items()}
_DPM: dict[str, Any] = {
    "algorithm_type": "dpmsolver++",
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "beta_start": 0.0001,
    "dynamic_thresholding_ratio": 0.995,
    "euler_at_final": False,
    "final_sigmas_type": "zero",
    "flow_shift": 1.0,
    "lambda_min_clipped": -math.inf,
    "lower_order_final": True,
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
    "rescale_betas_zero_snr": False,
    "sample_max_value": 1.0,
    "solver_order": 2,
    "solver_type": "midpoint",
    "steps_offset": 0,
    "thresholding": False,
    "time_shift_type": "exponential",
    "timestep_spacing": "linspace",
    "trained_betas": None,
    "use_beta_sigmas": False,
    "use_dynamic_shifting": False,
    "use_exponential_sigmas": False,
    "use_flow_sigmas": False,
    "use_karras_sigmas": False,
    "use_lu_lambdas": False,
    "variance_type": None,
}
_EULER: dict[str, Any] = {
    "base_image_seq_len": 256,
    "base_shift": 0.5,
    "invert_sigmas": False,
    "max_image_seq_len": 4096,
    "max_shift": 1.15,
    "num_train_timesteps": 1000,
    "shift": 1.0,
    "shift_terminal": None,
    "stochastic_sampling": False,
    "time_shift_type": "exponential",
    "use_beta_sigmas": False,
    "use_dynamic_shifting": False,
    "use_exponential_sigmas": False,
    "use_karras_sigmas": False,
}
_SCM: dict[str, Any] = {"num_train_timesteps": 1000, "prediction_type": "trigflow", "sigma_data": 0.5}
_DEFAULTS = {"dpm": _DPM, "euler": _EULER, "scm": _SCM}
# A config made from another scheduler's keeps that one's fields; only these change what is drawn.
_OFF = ("thresholding", "use_beta_sigmas", "use_dynamic_shifting", "use_exponential_sigmas", "use_karras_sigmas",
        "use_lu_lambdas", "rescale_betas_zero_snr", "stochastic_sampling", "invert_sigmas")  # fmt: skip
_BETAS = ("beta_start", "beta_end", "beta_schedule", "trained_betas")
# Fields of other schedulers and later releases, at the value that is computed here.
_HARMLESS: dict[str, tuple[object, ...]] = {
    "clip_sample": (False,),
    "eta": (0.0,),
    "set_alpha_to_one": (False, True),
    "skip_prk_steps": (False, True),
    "timestep_type": ("discrete",),
}
_MAX_SHIFT = 1000  # of the times; 6 at 4K, 8 for video


def from_config(
    data: Mapping[str, Any], where: str = "scheduler/scheduler_config.json", unknown: UnknownFields = STRICT
) -> Schedule:
    """Their scheduler_config.json -> ours.

    For Euler, `flow_shift` and `shift` are one thing: files made from the DPM-Solver's carry only the first.
    Raises ConfigError for another class, unknown fields, and settings that SANA's samplers do not have.
    """
    name = data.get("_class_name")
    if not isinstance(name, str) or name not in CLASSES:
        raise ConfigError(f"{where}: _class_name is {quoted(name)}, but must be one of {', '.join(CLASSES)}")
    kind = CLASSES[name]
    defaults = {**_DPM, **_EULER, **_SCM, **_DEFAULTS[kind]}
    fields = Fields(data, defaults, where, unknown, _HARMLESS)
    for key in fields.given:
        fields.typed(defaults[key], key)
    for key in _OFF:
        if fields.flag(key):
            raise fields.fail(key, "but only false is supported")
    fields.exactly("num_train_timesteps", 1000, "SANA's times run to 1000")
    if kind == "scm":
        fields.exactly("prediction_type", "trigflow", "SCM steps on TrigFlow predictions")
        return Schedule(kind=kind, sigma_data=fields.number("sigma_data", high=1000))
    if kind == "euler":
        fields.exactly("shift_terminal", None, "only null is supported")
        name = "shift" if "shift" in fields.given else "flow_shift"
        return Schedule(kind=kind, shift=fields.number(name, low=1 / _MAX_SHIFT, high=_MAX_SHIFT))
    return _dpm(fields)


def _dpm(fields: Fields) -> Schedule:
    fields.exactly("prediction_type", "flow_prediction", "SANA predicts velocities: flow_prediction")
    fields.exactly("use_flow_sigmas", True, "SANA's times are flow sigmas")
    fields.exactly("algorithm_type", "dpmsolver++", "only dpmsolver++ is supported")
    final = fields.choice("final_sigmas_type", ("zero", "sigma_min"))
    if final == "sigma_min":  # the smallest sigma comes from the betas
        for key in _BETAS:
            fields.exactly(key, _DPM[key], f"with final_sigmas_type sigma_min only {_DPM[key]} is supported")
    return Schedule(
        shift=fields.number("flow_shift", low=1 / _MAX_SHIFT, high=_MAX_SHIFT),
        order=fields.integer("solver_order", high=3),
        solver_type="heun" if fields.choice("solver_type", ("midpoint", "heun")) == "heun" else "midpoint",
        final="sigma_min" if final == "sigma_min" else "zero",
        lower_order_final=fields.flag("lower_order_final"),
        euler_at_final=fields.flag("euler_at_final"),
    )


def to_config(schedule: Schedule) -> dict[str, Any]:
    """Ours -> their scheduler_config.json, with every field that diffusers writes."""
    fields: dict[str, Any] = {"num_train_timesteps": schedule.train_steps}
    if schedule.kind == "dpm":
        fields |= {
            "prediction_type": "flow_prediction",
            "use_flow_sigmas": True,
            "flow_shift": schedule.shift,
            "solver_order": schedule.order,
            "solver_type": schedule.solver_type,
            "final_sigmas_type": schedule.final,
            "lower_order_final": schedule.lower_order_final,
            "euler_at_final": schedule.euler_at_final,
        }
    elif schedule.kind == "euler":
        fields["shift"] = schedule.shift
    else:
        fields["sigma_data"] = schedule.sigma_data
    names = {"_class_name": _NAMES[schedule.kind], "_diffusers_version": DIFFUSERS_VERSION}
    return {**_DEFAULTS[schedule.kind], **fields, **names}
