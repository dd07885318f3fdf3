"""OpenVINO, from our weights: Intel's runtime for networks on CPUs, and NNCF, which quantises them to int8.

The network is traced in the form that diffusers gives it, as `optimum` does, in float32; OpenVINO computes in bf16
if that is asked for and the chip has it, else in float32. NNCF quantises weights and activations, calibrated on a few
steps of the same noise at other times.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor, nn

from sanakit.benchmark.engines import EngineSpec, Peer
from sanakit.benchmark.peers.diffusers import peer_decoder, peer_transformer, step_inputs
from sanakit.benchmark.workload import (
    Encoders,
    Work,
    Workload,
    random_decoder,
    random_transformer,
    weight_bytes,
)

_HINTS = {torch.float32: "f32", torch.bfloat16: "bf16", torch.float16: "f16"}
_NAMES = {"f32": "float32", "bf16": "bfloat16", "f16": "float16"}
_CALIBRATION_TIMES = (999.0, 800.0, 600.0, 400.0, 200.0, 50.0)
"""Times of the steps that NNCF is calibrated on, in thousandths."""


def step(workload: Workload, spec: EngineSpec, encoders: Encoders) -> Work:
    """One step with guidance, two branches in one batch, over padded text."""
    peer = peer_transformer(random_transformer(workload.shapes.transformer, torch.float32))
    inputs = step_inputs(workload, torch.float32)
    model = _converted(peer, inputs)
    if spec.int8:
        model = _quantised(
            model, [_arrays(step_inputs(workload, torch.float32, t)) for t in _CALIBRATION_TIMES]
        )
    return _work(model, inputs, workload, spec, weight_bytes(peer))


def decode(workload: Workload, spec: EngineSpec, encoders: Encoders) -> Work:
    """One latent to pixels."""
    peer = peer_decoder(random_decoder(workload.shapes.autoencoder, torch.float32))
    inputs = {"hidden_states": workload.noise(1, torch.float32)}
    model = _converted(peer, inputs)
    if spec.int8:
        model = _quantised(model, [_arrays(inputs)])
    return _work(model, inputs, workload, spec, weight_bytes(peer))


PEER = Peer(
    name="openvino",
    libraries=("openvino", "diffusers"),
    for_int8=("nncf",),
    stages={"step": step, "decode": decode},
    devices=("cpu",),
)


def _converted(peer: nn.Module, inputs: dict[str, Tensor]) -> Any:
    """Return the network as OpenVINO holds it, for inputs of these shapes."""
    import openvino

    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's tracer and diffusers warn about what a trace can't follow
        traced = torch.jit.trace(
            _First(peer, tuple(inputs)).eval(), tuple(inputs.values()), check_trace=False
        )
        # Frozen, weights are constants of the graph: their names in diffusers are more than OpenVINO follows.
        model = openvino.convert_model(torch.jit.freeze(traced), example_input=tuple(inputs.values()))
    model.reshape({port: list(x.shape) for port, x in zip(model.inputs, inputs.values(), strict=True)})
    return model


class _First(nn.Module):
    """A network of keyword arguments as one of positional arguments, and the first of its results."""

    def __init__(self, network: nn.Module, names: tuple[str, ...]) -> None:
        super().__init__()
        self.network, self.names = network, names

    def forward(self, *inputs: Tensor) -> Tensor:
        """Call the network."""
        result = self.network(**dict(zip(self.names, inputs, strict=True)))
        first: Tensor = result if isinstance(result, Tensor) else result[0]
        return first


def _quantised(model: Any, samples: list[list[Any]]) -> Any:
    """Weights and activations in int8."""
    import nncf

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NNCF warns about versions of torch it was not made for
        return nncf.quantize(
            model, nncf.Dataset(samples), subset_size=len(samples), model_type=nncf.ModelType.TRANSFORMER
        )


def _work(model: Any, inputs: dict[str, Tensor], workload: Workload, spec: EngineSpec, size: int) -> Work:
    import openvino

    settings = {
        "INFERENCE_PRECISION_HINT": _HINTS[spec.dtype or workload.dtype],
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "PERFORMANCE_HINT": "LATENCY",
    }
    compiled = openvino.Core().compile_model(model, "CPU", settings)
    arrays = _arrays(inputs)
    used = str(compiled.get_property("INFERENCE_PRECISION_HINT").to_string())

    def run() -> Tensor:
        return torch.from_numpy(compiled(arrays)[0])

    return Work(run=run, size=size, dtype="int8" if spec.int8 else _NAMES.get(used, used))


def _arrays(inputs: dict[str, Tensor]) -> list[Any]:
    return [tensor.numpy() for tensor in inputs.values()]
