"""Why no GPU row runs, in words: no CUDA, an old driver, a chip without bf16 or fp8, heads that no kernel holds."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from sanakit.base.precision import decide
from sanakit.kernels import gpu
from sanakit.kernels.choice import Problem, explain, select

OLD = "needs a GPU of compute capability {} or newer, and this one has {}"


class Machine:
    """A machine with a GPU, or without one, for as long as a test runs."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._set = monkeypatch.setattr

    def gpu(self, capability: tuple[int, int] | None, driver: int = 0, built: str | None = "12.8") -> None:
        """capability: None for no usable GPU. driver: as CUDA numbers versions. built: for which CUDA torch was."""
        self._set(torch.cuda, "is_available", lambda: capability is not None)
        self._set(torch.cuda, "get_device_capability", lambda device=None: capability)
        self._set(torch.cuda, "get_device_name", lambda device=None: "a card")
        self._set(torch.cuda, "is_bf16_supported", lambda **_: (capability or (0, 0)) >= (8, 0))
        self._set(torch.version, "cuda", built)
        self._set(torch._C, "_cuda_getDriverVersion", lambda: driver, raising=False)
        self._set(gpu, "find_spec", lambda name: object())
        forget()


def forget() -> None:
    from sanakit.kernels import choice

    gpu.unavailable.cache_clear()
    choice._select.cache_clear()


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    yield Machine(monkeypatch)
    monkeypatch.undo()
    forget()


def refusal(op: str, row: str, dtype: torch.dtype = torch.bfloat16, **facts: int) -> str:
    """What the table says of a row; where it refuses, another runs."""
    problem = Problem(op, "cuda", dtype, tuple(sorted(facts.items())))
    (line,) = (line for line in explain(problem) if line.startswith(f"{op}: {row}: "))
    assert (select(op, problem).name == row) == ("refuses" not in line)
    return line.removeprefix(f"{op}: {row}: ")


@pytest.mark.parametrize(
    ("driver", "built", "words"),
    [
        (0, None, f"needs a torch built for CUDA, and this one is {torch.__version__}"),
        (0, "12.8", "needs a CUDA GPU and its driver"),
        (13000, "12.8", "needs a CUDA GPU and its driver"),
        (
            11040,
            "12.8",
            "needs a newer NVIDIA driver: this one serves CUDA 11.4, and torch was built for 12.8",
        ),
    ],
)
def test_without_cuda(machine: Machine, driver: int, built: str | None, words: str) -> None:
    machine.gpu(None, driver, built)
    assert refusal("gated_depthwise", "triton") == f"refuses: {words}"
    assert refusal("fp8_matmul", "scaled") == f"refuses: {words}"
    assert gpu.describe() == f"no Triton kernel runs, which {words}"


def test_a_chip_without_bf16(machine: Machine) -> None:
    machine.gpu((7, 5))
    assert refusal("linear_attention", "triton", torch.float32) == f"refuses: {OLD.format('8.0', '7.5')}"
    precision = decide("auto", "auto")
    assert precision.dtype == torch.float32 and "this GPU has no bf16 units" in precision.reason


def test_a_chip_without_fp8(machine: Machine) -> None:
    machine.gpu((8, 0))
    assert refusal("fp8_matmul", "scaled") == f"refuses: {OLD.format('9.0', '8.0')}"
    assert refusal("int8_matmul", "triton") == "chosen"
    assert gpu.describe() == "a card, compute capability 8.0: Triton kernels run"


def test_heads_that_no_kernel_holds(machine: Machine) -> None:
    machine.gpu((9, 0))
    words = "refuses: holds heads of at most 128 values, and these have 160"
    assert refusal("linear_attention", "triton", width=160) == words
    assert refusal("linear_attention", "triton", width=112) == "chosen"


def test_without_triton(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.gpu((9, 0))
    monkeypatch.setattr(gpu, "find_spec", lambda name: None)
    forget()
    words = "needs the package triton, which is not installed"
    assert refusal("modulated_norm", "triton") == f"refuses: {words}"
