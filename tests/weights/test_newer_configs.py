"""Configuration files of releases that know more fields: harmless ones are noted, others refuse until ignored."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from sanakit.base.errors import ConfigError
from sanakit.weights import read_model_spec
from sanakit.weights.formats import diffusers_scheduler, diffusers_transformer
from sanakit.weights.formats.diffusers_scheduler import Schedule
from tests.oracles.tiny import Recipe, write_tiny

FILES = (
    "model_index.json",
    "transformer/config.json",
    "vae/config.json",
    "scheduler/scheduler_config.json",
    "text_encoder/config.json",
)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("newer"), Recipe(width=8, depth=1))


def edited(tiny: Path, folder: Path, file: str, **changes: object) -> Path:
    shutil.copytree(tiny, folder)
    path = folder / file
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return folder


@pytest.mark.parametrize("file", FILES)
def test_unknown_and_null_passes_with_a_note(tiny: Path, tmp_path: Path, file: str) -> None:
    found = read_model_spec(edited(tiny, tmp_path / "a", file, brand_new=None))
    (note,) = found.notes
    assert file in note and "brand_new was passed over: it is None" in note
    assert found.transformer == read_model_spec(tiny).transformer


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("value", [True, 0, 3, "x", [1], {}], ids=str)
def test_unknown_and_set_is_refused_with_the_way_out(
    tiny: Path, tmp_path: Path, file: str, value: object
) -> None:
    folder = edited(tiny, tmp_path / "a", file, brand_new=value, and_another=1)
    with pytest.raises(ConfigError, match=r"--ignore-config-fields and_another,brand_new") as caught:
        read_model_spec(folder)
    assert file in str(caught.value)
    with pytest.raises(ConfigError, match="brand_new"):
        read_model_spec(folder, ignore=["and_another"])
    found = read_model_spec(folder, ignore=["brand_new", "and_another"])
    assert sum("was ignored as asked" in note for note in found.notes) == 2


@pytest.mark.parametrize(
    ("file", "field", "value", "other"),
    [
        ("transformer/config.json", "use_rope", False, True),
        ("transformer/config.json", "gradient_checkpointing", True, "yes"),
        ("vae/config.json", "shift_factor", 0.0, 0.5),
        ("vae/config.json", "force_upcast", True, 1),
        ("scheduler/scheduler_config.json", "clip_sample", False, True),
        ("scheduler/scheduler_config.json", "eta", 0.0, 1.0),
        ("text_encoder/config.json", "attention_backend", "native", "sage"),
        ("model_index.json", "requires_safety_checker", False, "no"),
        ("model_index.json", "safety_checker", [None, None], ["diffusers", "Checker"]),
    ],
)
def test_listed_values_pass_with_a_note(
    tiny: Path, tmp_path: Path, file: str, field: str, value: object, other: object
) -> None:
    assert len(read_model_spec(edited(tiny, tmp_path / "a", file, **{field: value})).notes) == 1
    with pytest.raises(ConfigError, match=field):
        read_model_spec(edited(tiny, tmp_path / "b", file, **{field: other}))


def test_a_known_field_can_be_ignored_too(tiny: Path, tmp_path: Path) -> None:
    file = "scheduler/scheduler_config.json"
    folder = edited(tiny, tmp_path / "a", file, use_karras_sigmas=True)
    with pytest.raises(ConfigError, match="use_karras_sigmas is true, but only false"):
        read_model_spec(folder)
    assert read_model_spec(folder, ignore=["use_karras_sigmas"]).schedule == Schedule()


def test_ignoring_what_no_file_has_is_a_slip(tiny: Path) -> None:
    with pytest.raises(ConfigError, match="no configuration file in .* has such a field"):
        read_model_spec(tiny, ignore=["no_such_field"])


def test_without_a_listener_a_note_is_a_warning() -> None:
    with pytest.warns(UserWarning, match="brand_new was passed over"):
        diffusers_transformer.from_config({"brand_new": None})


@pytest.mark.parametrize("lower_order_final", [True, False])
@pytest.mark.parametrize("euler_at_final", [True, False])
def test_the_ending_of_a_schedule_round_trips(lower_order_final: bool, euler_at_final: bool) -> None:
    schedule = Schedule(lower_order_final=lower_order_final, euler_at_final=euler_at_final)
    assert diffusers_scheduler.from_config(diffusers_scheduler.to_config(schedule)) == schedule


def test_a_sprint_with_a_scale_of_time_is_refused(tmp_path: Path) -> None:
    """diffusers' Sprint pipeline gives the noise level as it is, whatever the field says."""
    tiny = write_tiny(tmp_path / "tiny", Recipe(width=8, depth=1, sprint=True))
    folder = edited(tiny, tmp_path / "a", "transformer/config.json", timestep_scale=0.001)
    with pytest.raises(ConfigError, match=r"timestep_scale 0\.001, but only 1 is obeyed"):
        read_model_spec(folder)


# Every field of diffusers' schedulers: what changes a trajectory when it is changed must be obeyed or refused.
CHANGES: dict[str, Any] = {
    "use_karras_sigmas": True,
    "use_exponential_sigmas": True,
    "use_beta_sigmas": True,
    "use_lu_lambdas": True,
    "use_dynamic_shifting": True,
    "rescale_betas_zero_snr": True,
    "thresholding": True,
    "algorithm_type": "sde-dpmsolver++",
    "prediction_type": "epsilon",
    "use_flow_sigmas": False,
    "num_train_timesteps": 500,
    "solver_type": "logrho",
    "final_sigmas_type": "x",
}


@pytest.mark.parametrize("field", CHANGES)
def test_fields_that_are_not_obeyed_are_refused(field: str) -> None:
    data = diffusers_scheduler.to_config(Schedule())
    with pytest.raises(ConfigError, match=field):
        diffusers_scheduler.from_config({**data, field: CHANGES[field]})


@pytest.mark.parametrize(
    ("field", "value"),
    [("shift_terminal", 0.1), ("stochastic_sampling", True), ("invert_sigmas", True), ("use_karras_sigmas", True),
     ("use_dynamic_shifting", True), ("num_train_timesteps", 10)],
)  # fmt: skip
def test_fields_of_euler_that_are_not_obeyed_are_refused(field: str, value: object) -> None:
    data = diffusers_scheduler.to_config(Schedule(kind="euler"))
    with pytest.raises(ConfigError, match=field):
        diffusers_scheduler.from_config({**data, field: value})
