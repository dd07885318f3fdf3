"""Layout of a parameter over processes: whole, or cut into rows as FSDP2 cuts it (`fully_shard`).

Optimisers here compute on each process's rows and add up what they need of the others, so that sharded training takes
the steps of training on one process. What they keep is cut like the parameter, and saved and resharded with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sanakit.base.errors import ConfigError


@dataclass(frozen=True, eq=False)
class Layout:
    """Where the rows of a parameter are. Of a whole parameter `mesh` is None, and every method gives what it was given.

    cut: the axes of the mesh over which rows are spread.
    """

    mesh: Any = None
    placements: tuple[Any, ...] = ()
    cut: tuple[int, ...] = ()

    def local(self, x: Any) -> Tensor:
        """Return this process's part of a tensor."""
        part: Tensor = x if self.mesh is None else x.to_local()
        return part

    def total(self, x: Tensor) -> Tensor:
        """Return the sum of x over all processes that hold rows, in place."""
        for axis in self.cut:
            torch.distributed.all_reduce(x, group=self.mesh.get_group(axis))
        return x

    def rows(self, x: Tensor, count: int) -> Tensor:
        """Return this process's rows x [r, ...] as the tensor of all of them [count, ...]."""
        if self.mesh is None:
            return x
        return self._joined(x, self.placements, torch.Size((count, *x.shape[1:])))

    def whole(self, x: Any) -> Tensor:
        """Return all of a tensor that is cut as the parameter is, on every process; to be called by all."""
        full: Tensor = x if self.mesh is None else x.full_tensor()
        return full

    def part(self, x: Tensor) -> Tensor:
        """Return this process's rows of a tensor that every process has alike."""
        if self.mesh is None:
            return x
        cut: Any = self.same(x)
        rows: Tensor = cut.redistribute(placements=self.placements).to_local()
        return rows

    def same(self, x: Tensor) -> Tensor:
        """Return a tensor that every process has alike."""
        if self.mesh is None:
            return x
        from torch.distributed.tensor import Replicate

        return self._joined(x, tuple(Replicate() for _ in self.placements), x.shape)

    def _joined(self, x: Tensor, placements: tuple[Any, ...], shape: torch.Size) -> Tensor:
        from torch.distributed.tensor import DTensor

        stride = torch.empty(shape, device="meta").stride()
        return DTensor.from_local(x, self.mesh, placements, run_check=False, shape=shape, stride=stride)


_WHOLE = Layout()


def layout_of(parameter: Any) -> Layout:
    """Return the layout of a parameter. Raises ConfigError if it is cut along anything but its first axis."""
    # Only DTensors have a mesh, and not every build of torch has DTensors.
    if not hasattr(parameter, "device_mesh"):
        return _WHOLE
    placements = parameter.placements
    cut = tuple(axis for axis, placement in enumerate(placements) if not placement.is_replicate())
    if not all(placements[axis].is_shard(0) for axis in cut):
        raise ConfigError(
            f"optimizer: CAME and Muon read parameters that are whole or cut into rows (FSDP2), not {placements}; "
            "shard along axis 0, or train with adamw"
        )
    return Layout(parameter.device_mesh, tuple(placements), cut)
