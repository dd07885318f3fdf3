"""LoRA on a built transformer: layers found by readable names, adapters put beside them, taken off, or merged.

An adapter of a model is `LowRank` values by the names of layers; so files, training and requests exchange it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from fnmatch import fnmatchcase

import torch
from torch import nn

from sanakit.adapt.pack import PackedLinear
from sanakit.adapt.quantise import QuantLinear
from sanakit.base.errors import RequestError
from sanakit.layers.lora import AdaptedConv, AdaptedLayer, AdaptedLinear, Adapter, LowRank, merged

LowRanks = Mapping[str, LowRank]
"""Name of a layer -> what an adapter changes in it."""

FUSED: dict[str, int] = {"qkv": 3, "kv": 2}
"""Last part of a layer's name -> the published matrices that lie in its weight, one below the other."""

ATTENTIONS = ("attention", "cross")
"""The targets of the published recipes: every projection of both attentions."""


_LAYERS = (nn.Linear, nn.Conv2d, QuantLinear, PackedLinear)


def matrices(name: str) -> int:
    """Return how many published matrices the weight of a layer holds."""
    return FUSED.get(name.rpartition(".")[2], 1)


def adaptable(model: nn.Module) -> dict[str, nn.Module]:
    """Return the layers that adapters can be put beside, by name; of one that has some, the layer itself."""
    layers = dict[str, nn.Module]()
    for name, module in model.named_modules():
        if isinstance(module, AdaptedLayer):
            layers[name] = module.base
        elif isinstance(module, _LAYERS) and name.removesuffix(".base") not in layers:
            layers[name] = module
    return layers


def find_layers(model: nn.Module, patterns: Iterable[str]) -> tuple[str, ...]:
    """Return the names of the layers that patterns mean, in the order of the model.

    A pattern names a layer or a part that holds layers, of the model (`text`, `blocks.3.ffn`, `blocks.*.cross.q`) or
    of every block (`attention`, `cross`, `ffn`, `ffn.depthwise`); `*` stands for anything.
    Raises RequestError for a pattern that matches no layer.
    """
    names, found = tuple(adaptable(model)), set[str]()
    for pattern in patterns:
        forms = [form for base in (pattern, f"blocks.*.{pattern}") for form in (base, f"{base}.*")]
        matches = {name for name in names if any(fnmatchcase(name, form) for form in forms)}
        if not matches:
            parts = dict.fromkeys(name.split(".", 2)[2] for name in names if name.startswith("blocks."))
            raise RequestError(
                f"no layer of the transformer is called {pattern!r}; use attention, cross, ffn, one of "
                f"{', '.join(parts)}, or a pattern such as blocks.0.*"
            )
        found |= matches
    return tuple(name for name in names if name in found)


def add_adapter(
    model: nn.Module, name: str, lows: LowRanks, *, weight: float = 1.0, dropout: float = 0.0
) -> None:
    """Put an adapter beside the layers it names, in place; its tensors become parameters there.

    The layers themselves are not changed. dropout: of the inputs of linear layers; convolutions have none.
    Raises RequestError for a layer that isn't there or has another size, ValueError for a name in use.
    """
    check_fit(model, lows)
    if any(name in layer.adapters for _, layer in adapted(model)):
        raise ValueError(f"there is an adapter {name!r} already.")
    for target, low in lows.items():
        layer = _opened(model, target)
        plain = isinstance(layer, AdaptedConv)
        adapter = Adapter(low, weight=weight, dropout=0.0 if plain else dropout)
        layer.adapters[name] = adapter.train(layer.training)


def open_layers(model: nn.Module) -> None:
    """Wrap every layer, in place, so that adapters can still come and go once the model was packed or quantised."""
    for name in adaptable(model):
        _opened(model, name)


def replace_adapters(model: nn.Module, adapters: Mapping[str, LowRanks]) -> None:
    """Put these adapters, by name, in the place of all others, in a model of open layers.

    Raises as `add_adapter`, and RequestError for magnitudes beside a packed weight; the model is then as before.
    """
    layers = dict(adapted(model))
    for lows in adapters.values():
        check_fit(model, lows)
        for name, low in lows.items():
            if low.magnitude is not None and isinstance(layers[name].base, PackedLinear):
                raise RequestError(
                    f"the magnitudes of a DoRA read the weight of {name}, which is packed: draw with LoRAs merged"
                )
    for layer in layers.values():
        layer.adapters.clear()
    for name, lows in adapters.items():
        for target, low in lows.items():
            layers[target].adapters[name] = Adapter(low).train(layers[target].training).requires_grad_(False)


def _opened(model: nn.Module, name: str) -> AdaptedLayer:
    """Return the layer of a name, wrapped in place unless it is."""
    layer = model.get_submodule(name)
    if not isinstance(layer, AdaptedLayer):
        layer = AdaptedConv(layer) if isinstance(layer, nn.Conv2d) else AdaptedLinear(layer)
        layer.train(layer.base.training)
        model.set_submodule(name, layer)
    return layer


def check_fit(model: nn.Module, lows: LowRanks) -> None:
    """Raise RequestError unless every layer is there and has the size that its adapter is for."""
    layers = adaptable(model)
    for name, low in lows.items():
        if name not in layers:
            raise RequestError(f"the LoRA changes {name}, which isn't a layer of this transformer")
        outputs, inputs = layer_size(layers[name])
        if (low.outputs, low.inputs) != (outputs, inputs or low.inputs):
            raise RequestError(
                f"the LoRA is for another transformer: its {name} has {low.inputs} inputs and {low.outputs} "
                f"outputs, and the model's {inputs} and {outputs}"
            )


def layer_size(layer: nn.Module) -> tuple[int, int]:
    """Return outputs O and inputs K of an adaptable layer; K = 0 where a packed weight no longer shows it."""
    weight = getattr(layer, "weight", None)
    if isinstance(weight, torch.Tensor):
        return len(weight), weight[0].numel()
    return int(getattr(layer, "out_features", 0)), 0


def set_weights(model: nn.Module, weights: Mapping[str, float]) -> None:
    """Set the factors of adapters by name, in place; the others keep theirs. Raises ValueError for a name not there."""
    known = adapter_names(model)
    if unknown := [name for name in weights if name not in known]:
        raise ValueError(f"no adapter {unknown[0]!r}; there are {', '.join(known) or 'none'}.")
    for _, layer in adapted(model):
        for name, adapter in layer.adapters.items():
            if name in weights and isinstance(adapter, Adapter):
                adapter.weight = weights[name]


@contextmanager
def adapters_disabled(model: nn.Module) -> Iterator[None]:
    """Let a model compute what it does without adapters, for a while, whatever these hold."""
    layers = [layer for _, layer in adapted(model)]
    for layer in layers:
        layer.enabled = False
    try:
        yield
    finally:
        for layer in layers:
            layer.enabled = True


def remove_adapter(model: nn.Module, name: str) -> None:
    """Take an adapter off, in place; layers without any are themselves again. Raises ValueError for another name."""
    layers = [(target, layer) for target, layer in adapted(model) if name in layer.adapters]
    if not layers:
        raise ValueError(f"no adapter {name!r}; there are {', '.join(adapter_names(model)) or 'none'}.")
    for target, layer in layers:
        del layer.adapters[name]
        if not layer.adapters:
            model.set_submodule(target, layer.base)


def low_ranks(model: nn.Module, name: str) -> dict[str, LowRank]:
    """Return the adapter `name` as values, which share its parameters; empty if there is none."""
    found = ((target, layer.adapters[name]) for target, layer in adapted(model) if name in layer.adapters)
    return {target: adapter.value() for target, adapter in found if isinstance(adapter, Adapter)}


def merge_adapters(model: nn.Module) -> None:
    """Merge all adapters into the weights, with their factors, in place, and take them off.

    Raises RequestError if a layer has no plain weight to merge into: quantised or packed.
    """
    layers = list(adapted(model))
    for target, layer in layers:
        if not isinstance(layer.base, nn.Linear | nn.Conv2d):
            raise RequestError(
                f"{target} is held as {type(layer.base).__name__}, and nothing can be merged into that"
            )
    with torch.no_grad():
        for target, layer in layers:
            weight = merged(layer.base.weight, [adapter.active() for adapter in layer.each()])
            layer.base.weight = nn.Parameter(weight, requires_grad=layer.base.weight.requires_grad)
            model.set_submodule(target, layer.base)


def adapter_names(model: nn.Module) -> tuple[str, ...]:
    """Return the names of the adapters of a model."""
    return tuple(dict.fromkeys(name for _, layer in adapted(model) for name in layer.adapters))


def adapted(model: nn.Module) -> Iterator[tuple[str, AdaptedLayer]]:
    """Yield the layers with adapters, by name."""
    return (
        (name, module) for name, module in list(model.named_modules()) if isinstance(module, AdaptedLayer)
    )
