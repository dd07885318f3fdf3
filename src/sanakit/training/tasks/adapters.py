"""The adapters of a run: which layers get one, with which first values, and what becomes of them in a file.

PiSSA (arXiv 2404.02948) splits a weight into its largest singular values, which an adapter learns, and the rest, which
is frozen. Here the weight stays whole and a second, frozen adapter takes the first one's beginning away again: the same
sum, of a base model that is as it was, also in int8.

Letters: G published matrices in the weight of a layer (q, k, v), o outputs of each, K inputs, r rank.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from sanakit.adapt.lora import adaptable, add_adapter, find_layers, layer_size, matrices
from sanakit.base.errors import ConfigError, RequestError
from sanakit.layers.lora import AdaptedLayer, Adapter, LowRank
from sanakit.training.lora_settings import LoraConfig

TRAINED, BEGUN = "trained", "begun"
"""Names of the adapter that learns, and of the one that takes its beginning away."""

_WHOLE = 512
"""Shorter side up to which all singular values are computed; above it the largest ones by iteration."""

_ROUNDS = 16  # of that iteration, as peft has them


def chosen_layers(model: nn.Module, settings: LoraConfig) -> tuple[str, ...]:
    """Return the names of the layers that get an adapter; weights are not read, so a model on the meta device will do.

    Raises ConfigError for a target that matches nothing, and for a rank that a matrix does not have.
    """
    try:
        names = find_layers(model, settings.targets)
    except RequestError as error:
        raise ConfigError(f"lora.targets: {error}") from None
    layers = adaptable(model)
    for name in names:
        outputs, inputs = layer_size(layers[name])
        most = min(outputs // matrices(name), inputs)
        if settings.rank > most:
            raise ConfigError(
                f"lora.rank is {settings.rank}, and {name} has matrices of {outputs // matrices(name)} x {inputs}: "
                f"take {most} at most, or name others in lora.targets"
                + (", e.g. ffn.expand and ffn.project" if name.endswith("depthwise") else "")
            )
    return names


class AdapterSet(nn.Module):
    """The adapters of a run, by the names of their layers: all that a checkpoint keeps.

    Attributes:
        trained: learns. begun: what PiSSA takes away, frozen; None for other beginnings.
    """

    def __init__(self, trained: Mapping[str, Adapter], begun: Mapping[str, Adapter] | None) -> None:
        super().__init__()
        self.trained = _tree(trained)
        self.begun = None if begun is None else _tree(begun)
        self._named = [dict(trained), dict(begun or {})]

    def values(self, weights: Mapping[str, Tensor]) -> dict[str, LowRank]:
        """Return what the run has changed, by layer. weights: of `trained`, by their names there.

        With a beginning to take away its rank is twice that of the adapters (arXiv 2404.02948, section C).
        """
        trained, begun = self._named
        found = {}
        for name, adapter in trained.items():
            magnitude = None if adapter.magnitude is None else weights[f"{name}.magnitude"]
            now = replace(
                adapter.value(), down=weights[f"{name}.down"], up=weights[f"{name}.up"], magnitude=magnitude
            )
            found[name] = _without(now, begun[name].value()) if name in begun else now
        return found


def _without(now: LowRank, begun: LowRank) -> LowRank:
    """Return the difference of two changes of one scale as one."""
    down = torch.cat([now.down, begun.down.detach().to(now.down)], dim=1)
    return replace(now, down=down, up=torch.cat([now.up, -begun.up.detach().to(now.up)], dim=2))


def adapt(model: nn.Module, names: Sequence[str], settings: LoraConfig, seed: int) -> AdapterSet:
    """Put adapters beside the layers of a model, in place, float32 on its device. seed: of what is drawn."""
    generator = torch.Generator().manual_seed(seed)
    layers = adaptable(model)
    first = {name: first_value(name, layers[name], settings, generator) for name in names}
    add_adapter(model, TRAINED, first, dropout=settings.dropout)
    begun = None
    if settings.init == "pissa":
        same = {name: replace(low, down=low.down.clone(), up=low.up.clone()) for name, low in first.items()}
        add_adapter(model, BEGUN, same, weight=-1.0)
        begun = {name: _adapter(model, name, BEGUN).requires_grad_(False) for name in names}
    return AdapterSet({name: _adapter(model, name, TRAINED) for name in names}, begun)


def first_value(name: str, layer: nn.Module, settings: LoraConfig, generator: torch.Generator) -> LowRank:
    """Return the adapter of a layer as it begins: together with the layer it computes what the layer does."""
    rows = AdaptedLayer(layer).plain_weight.detach().float().flatten(1)  # [G * o, K]
    count = matrices(name)
    parts = list(rows.chunk(count))
    if settings.init == "pissa":
        pairs = [principal(part, settings.rank, settings.scale) for part in parts]
        downs, ups = zip(*pairs, strict=True)
        down, up = torch.stack(downs), torch.stack(ups)
    else:
        down = _drawn(settings, (count, settings.rank, rows.shape[1]), generator).to(rows.device)
        up = torch.zeros(count, len(rows) // count, settings.rank, device=rows.device)
    magnitude = torch.stack([part.norm(dim=1) for part in parts]) if settings.dora else None
    return LowRank(
        down=down, up=up, scale=settings.scale, magnitude=magnitude, groups=tuple(range(count)), of=count
    )


def _drawn(settings: LoraConfig, shape: tuple[int, int, int], generator: torch.Generator) -> Tensor:
    """Return the factor that is not 0, [G, r, K]: as peft draws it for these names."""
    if settings.init == "gaussian":
        return torch.randn(shape, generator=generator) / settings.rank
    reach = shape[-1] ** -0.5  # Kaiming's for a slope of sqrt(5), as torch's own linear layers begin
    drawn: Tensor = (2 * torch.rand(shape, generator=generator) - 1) * reach
    return drawn


def principal(weight: Tensor, rank: int, scale: float) -> tuple[Tensor, Tensor]:
    """[o, K] -> down [r, K], up [o, r], whose product times `scale` has the weight's largest singular values."""
    if min(weight.shape) <= _WHOLE:
        left, values, right = torch.linalg.svd(weight, full_matrices=False)
    else:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            left, values, turned = torch.svd_lowrank(weight, q=rank, niter=_ROUNDS)
        right = turned.mT
    root = (values[:rank] / scale).sqrt()
    return (root[:, None] * right[:rank]).contiguous(), (left[:, :rank] * root).contiguous()


@dataclass(frozen=True, kw_only=True)
class AdapterCount:
    """layers: adapted ones. parameters: of their adapters that learn. frozen: of those that PiSSA takes away."""

    layers: int
    parameters: int
    frozen: int


def count_adapters(model: nn.Module, names: Sequence[str], settings: LoraConfig) -> AdapterCount:
    """Count what `adapt` would add to a model, which may be on the meta device."""
    layers, pairs, lengths = adaptable(model), 0, 0
    for name in names:
        outputs, inputs = layer_size(layers[name])
        pairs += settings.rank * (outputs + matrices(name) * inputs)
        lengths += outputs if settings.dora else 0
    return AdapterCount(
        layers=len(names), parameters=pairs + lengths, frozen=pairs if settings.init == "pissa" else 0
    )


def _adapter(model: nn.Module, layer: str, name: str) -> Adapter:
    found = model.get_submodule(f"{layer}.adapters.{name}")
    assert isinstance(found, Adapter)
    return found


def _tree(adapters: Mapping[str, Adapter]) -> nn.Module:
    """Modules within modules, so that each adapter has the name of its layer."""
    root = nn.Module()
    for name, adapter in adapters.items():
        *path, last = name.split(".")
        node = root
        for part in path:
            if part not in dict(node.named_children()):
                node.add_module(part, nn.Module())
            node = node.get_submodule(part)
        node.add_module(last, adapter)
    return root
