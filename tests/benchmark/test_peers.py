"""Peers of the benchmark: what each needs and does, OpenVINO by a stand-in, and itself where it is installed."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from sanakit.base import RequestError
from sanakit.benchmark import Machine, bench
from sanakit.benchmark.engines import DEFAULT, ENGINES, FULL, ON_GPU, OPTIONAL, engines_of
from sanakit.benchmark.peers import PEERS
from sanakit.benchmark.report import Row
from sanakit.benchmark.stages import work_of
from sanakit.benchmark.workload import Workload
from sanakit.pipeline.shapes import shapes_of

MACHINE = Machine(products={"float32": 1e11, "bfloat16": 1e12}, copy=2e10, name="a chip")


@pytest.fixture
def workload() -> Workload:
    return Workload(shapes=shapes_of("toybox"), width=96, height=64, dtype=torch.float32)


class Converted:
    """What the stand-in holds of a network: its trace."""

    def __init__(self, trace: Callable[..., torch.Tensor], count: int) -> None:
        self.trace, self.inputs = trace, list(range(count))
        self.shapes: dict[int, list[int]] = {}
        self.samples = 0

    def reshape(self, shapes: dict[int, list[int]]) -> None:
        self.shapes = shapes


class Compiled:
    """Runs a trace, slightly off where it was rounded."""

    def __init__(self, model: Converted, hint: str) -> None:
        self.model, self.hint = model, hint

    def get_property(self, name: str) -> Any:
        assert name == "INFERENCE_PRECISION_HINT"
        return SimpleNamespace(to_string=lambda: self.hint)

    def __call__(self, arrays: list[np.ndarray]) -> list[np.ndarray]:
        with torch.no_grad():
            found = self.model.trace(*map(torch.from_numpy, arrays)).numpy()
        return [found * (1.01 if self.model.samples else 1.0)]


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Modules that look like OpenVINO and NNCF; the settings of everything compiled."""
    settings: list[dict[str, Any]] = []

    class Core:
        def compile_model(self, model: Converted, device: str, wanted: dict[str, Any]) -> Compiled:
            settings.append({"device": device, "samples": model.samples, **wanted})
            return Compiled(model, wanted["INFERENCE_PRECISION_HINT"])

    def quantize(model: Converted, samples: list[Any], subset_size: int, model_type: str) -> Converted:
        assert len(samples) == subset_size and model_type == "transformer"
        model.samples = subset_size
        return model

    openvino, nncf = ModuleType("openvino"), ModuleType("nncf")
    vars(openvino).update(Core=Core, convert_model=lambda t, example_input: Converted(t, len(example_input)))
    vars(nncf).update(Dataset=list, quantize=quantize, ModelType=SimpleNamespace(TRANSFORMER="transformer"))
    for module in (openvino, nncf):
        module.__spec__ = ModuleSpec(module.__name__, None)
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return settings


def rows_of(workload: Workload, stages: tuple[str, ...]) -> list[Row]:
    engines = engines_of(("sanakit-plain", "openvino", "openvino-int8"))
    return [row for row in bench("toybox", workload, stages, engines, MACHINE, 1) if isinstance(row, Row)]


def test_openvino_has_rows_beside_ours(workload: Workload, stand_in: list[dict[str, Any]]) -> None:
    rows = rows_of(workload, ("step", "decode"))
    assert [(row.stage, row.engine) for row in rows] == [
        (stage, engine)
        for stage in ("step", "decode")
        for engine in ("sanakit-plain", "openvino", "openvino-int8")
    ]
    errors = {(row.stage, row.engine): row.error for row in rows}
    assert errors["step", "openvino"] < 1e-4 and errors["decode", "openvino"] < 1e-4
    assert errors["step", "openvino-int8"] == pytest.approx(0.01, rel=0.05)
    assert [one["samples"] for one in stand_in] == [0, 6, 0, 1]
    assert {one["INFERENCE_NUM_THREADS"] for one in stand_in} == {torch.get_num_threads()}


def test_what_openvino_computed_in_is_told(workload: Workload, stand_in: list[dict[str, Any]]) -> None:
    """Asked for bf16, it falls back where the chip has none: the row tells what it used."""
    work = work_of("step", workload, ENGINES["openvino"], {})
    assert work.dtype == "float32" and stand_in[0]["INFERENCE_PRECISION_HINT"] == "f32"
    half = Workload(shapes=workload.shapes, width=96, height=64, dtype=torch.bfloat16)
    assert work_of("step", half, ENGINES["openvino"], {}).dtype == "bfloat16"


def test_a_stage_that_a_peer_lacks_is_refused(workload: Workload, stand_in: list[dict[str, Any]]) -> None:
    with pytest.raises(RequestError, match="openvino runs step and decode only"):
        work_of("text", workload, ENGINES["openvino"], {})


def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("openvino", "nncf"):
        monkeypatch.setitem(sys.modules, name, None)
    peer = PEERS["openvino"]
    assert peer.missing(ENGINES["openvino"]) == ["openvino"]
    with pytest.raises(
        RequestError, match="openvino-int8 needs openvino and nncf, which are not installed: pip"
    ):
        peer.check(ENGINES["openvino-int8"], "cpu")


def test_openvino_is_for_cpus(stand_in: list[dict[str, Any]]) -> None:
    with pytest.raises(RequestError, match="openvino runs on cpu, not on cuda"):
        PEERS["openvino"].check(ENGINES["openvino"], "cuda")


def test_every_engine_of_others_has_its_peer() -> None:
    assert {spec.peer for spec in ENGINES.values()} - {None} == set(PEERS)
    assert all((spec.peer is None) == spec.name.startswith("sanakit") for spec in ENGINES.values())
    assert {spec.peer for spec in engines_of(OPTIONAL)} == {"openvino"}
    assert not set(OPTIONAL) & {*DEFAULT, *FULL, *ON_GPU}


def test_openvino_itself_computes_the_same(workload: Workload) -> None:
    pytest.importorskip("openvino", reason="OpenVINO is optional: pip install sanakit[openvino]")
    engines = engines_of(("sanakit-plain", "openvino"))
    rows = [
        row
        for row in bench("toybox", workload, ("step", "decode"), engines, MACHINE, 1)
        if isinstance(row, Row)
    ]
    assert all(row.error is None or row.error < 1e-3 for row in rows)
