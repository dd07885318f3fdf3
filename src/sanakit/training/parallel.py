"""Several processes as one run, started by `torchrun`: who this process is, and how the model is shared by all.

    single   one process
    ddp      every process holds the whole model; gradients are averaged
    fsdp     every process holds its share of weights, gradients, average and optimiser state (FSDP2)

`ddp` is FSDP on a mesh whose shards have one member each, so both take the same path and give the same numbers.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor

from sanakit.base.errors import ConfigError
from sanakit.base.precision import CPU

Mode = Literal["single", "ddp", "fsdp"]


@dataclass(frozen=True, kw_only=True)
class World:
    """This process among `size`; `rank` 0 leads: it alone writes and prints."""

    rank: int = 0
    size: int = 1
    device: torch.device = CPU
    mode: Mode = "single"

    @property
    def leads(self) -> bool:
        """True for the process that writes and prints."""
        return self.rank == 0

    def share(self, count: int) -> slice:
        """Return the part of a global batch of `count` samples that is this process's."""
        return slice(self.rank, count, self.size)

    def mean(self, value: Tensor) -> Tensor:
        """Return the mean of a scalar over all processes."""
        if self.size == 1:
            return value
        total = value.detach().clone()
        dist.all_reduce(total)
        return total / self.size

    def agree(self, signals: frozenset[str], known: Sequence[str]) -> frozenset[str]:
        """Return the `known` signals that any process has, on every process."""
        if self.size == 1:
            return signals
        flags = torch.tensor([int(name in signals) for name in known], device=self.device)
        dist.all_reduce(flags, dist.ReduceOp.MAX)
        return frozenset(name for name, flag in zip(known, flags.tolist(), strict=True) if flag)

    def from_lead(self, text: str | None) -> str | None:
        """Return the text of the first process, on every process."""
        if self.size == 1:
            return text
        shared = [text]
        dist.broadcast_object_list(shared, src=0, device=CPU)
        return shared[0]

    def tensor_from_lead(self, tensor: Tensor) -> Tensor:
        """Return the tensor of the first process, on every process."""
        if self.size == 1:
            return tensor
        shared = tensor.detach().to(CPU).contiguous()
        dist.broadcast(shared, src=0)
        return shared.to(tensor.device)

    def wait(self) -> None:
        """Until every process is here."""
        if self.size > 1:
            dist.barrier()


def join_world(device: torch.device, mode: Mode | None = None, usual: Mode = "fsdp") -> World:
    """Find this process among others, from the variables that `torchrun` sets; one process without them.

    mode: None takes `usual` if there are several processes.
    Raises ConfigError if a mode does not fit the number of processes.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if mode == "single" and size > 1:
        raise ConfigError(f"parallel is single, but torchrun started {size} processes; say ddp or fsdp")
    if mode in ("ddp", "fsdp") and "WORLD_SIZE" not in os.environ:
        raise ConfigError(f"parallel is {mode}, but this is one process; start it by torchrun")
    if size == 1:
        return World(device=device)
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    if not dist.is_initialized():
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, timeout=timedelta(minutes=30))
    return World(rank=dist.get_rank(), size=size, device=device, mode=mode or usual)


def leave_world(world: World) -> None:
    """End what `join_world` began."""
    if world.size > 1 and dist.is_initialized():
        dist.destroy_process_group()


def shard(model: nn.Module, world: World, blocks: Iterable[nn.Module] = ()) -> None:
    """Shard a model over the processes, in place; `blocks` are gathered and freed one after the other."""
    if world.mode == "single":
        return
    kind = world.device.type
    if world.mode == "ddp":
        mesh = init_device_mesh(kind, (world.size, 1), mesh_dim_names=("replicate", "shard"))
    else:
        mesh = init_device_mesh(kind, (world.size,))
    for block in blocks:
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)


@contextmanager
def quiet(model: nn.Module, last: bool) -> Iterator[None]:
    """Exchange the gradients of a backward pass only if it is the `last` of its step."""
    if isinstance(model, FSDPModule):
        model.set_requires_gradient_sync(last)
        model.set_is_last_backward(last)
    yield


def average_gradients(model: nn.Module, world: World) -> None:
    """Give every process the mean of all gradients, unless `shard` has seen to that already."""
    if world.size == 1 or isinstance(model, FSDPModule):
        return
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    flat = world.mean(torch.cat([gradient.flatten() for gradient in gradients]))
    for gradient, mean in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(mean.view(gradient.shape))


def reshard(model: nn.Module) -> None:
    """Back to shares: after a forward pass without a backward one, torch leaves some weights whole."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def local(tensor: Tensor) -> Tensor:
    """Return this process's part of a sharded tensor; any other tensor as it is."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def whole(tensor: Tensor) -> Tensor:
    """Return all of a sharded tensor, on every process; to be called by all."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
