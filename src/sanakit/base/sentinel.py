"""The NaN sentinel: says in which stage, and in which layer, numbers stopped being finite."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass

import torch
from torch import Tensor, nn

from sanakit.base.errors import NumericsError
from sanakit.base.units import dtype_name


def check_finite(tensor: Tensor, stage: str, layer: str | None = None) -> None:
    """Raise NumericsError, naming the stage (and layer), when `tensor` holds NaN or Inf."""
    finite = torch.isfinite(tensor)
    if bool(finite.all()):
        return
    broken = tensor.numel() - int(finite.sum())
    where = f"{stage}, layer {layer}" if layer else stage
    raise NumericsError(
        f"{broken} of {tensor.numel()} values are NaN or Inf after {where} ({_short(tensor.dtype)} on "
        f"{tensor.device.type}); try --dtype fp32"
    )


def run_finite(module: nn.Module, run: Callable[[], Tensor], stage: str) -> Tensor:
    """Return what `run`, a forward of `module`, returns; raise NumericsError with stage and layer for NaN or Inf."""
    result = run()
    if not bool(torch.isfinite(result).all()):
        check_finite(result, stage, find_nonfinite_layer(module, run))
    return result


def find_nonfinite_layer(module: nn.Module, run: Callable[[], object]) -> str | None:
    """Call `run` once more with a hook on every part of `module`; return the first part that breaks.

    run: repeats the forward that gave NaN or Inf. Returns the dotted name of the innermost part whose
    output was the first with a NaN or Inf, "(input)" when a tensor given to `module` already had one,
    or None when all were finite. Results of compiled or fused forwards are only seen from outside.
    """
    found: list[str] = []

    def watch(name: str) -> torch.utils.hooks.RemovableHandle:
        def hook(_: nn.Module, inputs: object, output: object) -> None:
            if not found and _broken(output):
                found.append(name or type(module).__name__)

        part = module.get_submodule(name)
        return part.register_forward_hook(hook)

    def entry(_: nn.Module, inputs: tuple[object, ...], named: dict[str, object]) -> None:
        if not found and (_broken(inputs) or _broken(named)):
            found.append("(input)")

    handles = [watch(name) for name, _ in module.named_modules()]
    handles.append(module.register_forward_pre_hook(entry, with_kwargs=True))
    try:
        run()
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else None


def _broken(value: object) -> bool:
    return any(
        tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()) for tensor in _tensors(value)
    )


def _tensors(value: object) -> Iterator[Tensor]:
    """Yield all tensors inside tuples, lists, mappings and dataclasses."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _tensors(item)
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _tensors(item)
    elif is_dataclass(value) and not isinstance(value, type):
        for field in fields(value):
            yield from _tensors(getattr(value, field.name))


def _short(dtype: torch.dtype) -> str:
    return dtype_name(dtype)
