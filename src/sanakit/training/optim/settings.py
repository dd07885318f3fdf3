"""Optimisers as data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, get_args

from sanakit.base.bounds import Bounds, Weight, check_bounds
from sanakit.base.errors import ConfigError

OptimizerName = Literal["adamw", "came", "came-8bit", "adamw-8bit", "muon"]
"""adamw, came: float32 states. came-8bit: a first moment in bytes. adamw-8bit: both in bytes, by torchao.
muon: orthogonal steps for the matrices in blocks, adamw for everything else."""

_BETAS = {"adamw": (0.9, 0.999), "came": (0.9, 0.999, 0.9999), "muon": (0.9, 0.999)}
_EPS = {"adamw": (1e-8,), "came": (1e-30, 1e-16), "muon": (1e-8,)}


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """An optimiser and its numbers; `build_optimizer` builds it.

    Raises ConfigError for what does not fit together.

    Attributes:
        name: which optimiser; came-8bit takes least memory, adamw-8bit needs torchao.
        lr: learning rate at its height; see schedule.rule for how it follows the batch.
        betas: two for AdamW, also beside Muon, three for CAME; None for (0.9, 0.999) and (0.9, 0.999, 0.9999).
        eps: one for AdamW, also beside Muon, two for CAME; None for (1e-8,) and (1e-30, 1e-16).
        weight_decay: decoupled weight decay, of matrices only.
        clip_threshold: CAME's largest RMS of a normalised gradient.
        block: values per scale of came-8bit.
        momentum: decay of Muon's momentum.
    """

    name: OptimizerName = "adamw"
    lr: Annotated[float, Bounds(least=0, most=100)] = 1e-4
    betas: tuple[Annotated[float, Bounds(least=0, below=1)], ...] | None = None
    eps: tuple[Annotated[float, Bounds(above=0, most=1)], ...] | None = None
    weight_decay: Weight = 0.0
    clip_threshold: Annotated[float, Bounds(above=0, most=10**6)] = 1.0
    block: Annotated[int, Bounds(least=1, most=2**20)] = 256
    momentum: Annotated[float, Bounds(least=0, below=1)] = 0.95

    def __post_init__(self) -> None:
        if self.name not in get_args(OptimizerName):
            raise ConfigError(
                f"optimizer: {self.name!r} is unknown; take one of {', '.join(get_args(OptimizerName))}"
            )
        for field, wanted in (("betas", _BETAS), ("eps", _EPS)):
            given, count = getattr(self, field), len(wanted[self.family])
            if given is not None and len(given) != count:
                raise ConfigError(f"optimizer: {self.name} takes {count} {field}, not {len(given)}")
        check_bounds(self, "optimizer.")

    @property
    def family(self) -> Literal["adamw", "came", "muon"]:
        """The family of optimisers, which says how many betas and epsilons it takes."""
        if self.name == "muon":
            return "muon"
        return "came" if self.name.startswith("came") else "adamw"

    @property
    def decays(self) -> tuple[float, ...]:
        """The betas, or their defaults."""
        return _BETAS[self.family] if self.betas is None else self.betas

    @property
    def epsilons(self) -> tuple[float, ...]:
        """The epsilons, or their defaults."""
        return _EPS[self.family] if self.eps is None else self.eps
