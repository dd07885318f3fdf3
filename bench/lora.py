"""What LoRAs cost a step, merged and beside the weights: `python -m bench.lora [--model NAME] [--blocks N] [--rank R]`.

A few blocks of a published size with random weights, both branches of a guided step, in one process and in turn, in the
form that the engine of this machine gives them. Seconds are those of the CPU on one thread, not of the clock, so that
other programs on the machine count little; ratios are medians over rounds. Merged and beside must agree before a time
is printed. Also how long it takes to put another LoRA in the place of one.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from sanakit.adapt.lora import (
    adaptable,
    add_adapter,
    find_layers,
    layer_size,
    matrices,
    merge_adapters,
    open_layers,
    replace_adapters,
)
from sanakit.adapt.runner import Runner
from sanakit.base.precision import decide
from sanakit.base.text_states import TextStates
from sanakit.benchmark.workload import random_transformer
from sanakit.layers.lora import LowRank
from sanakit.pipeline.engine import choose_engine, edit
from sanakit.transformer import PRESETS, SanaTransformer

ATTENTION, EVERYTHING = ("attention", "cross"), ("attention", "cross", "ffn")


def lora_for(model: nn.Module, targets: tuple[str, ...], rank: int) -> dict[str, LowRank]:
    """A LoRA with random weights."""
    layers, lows = adaptable(model), {}
    for name in find_layers(model, targets):
        (outputs, inputs), of = layer_size(layers[name]), matrices(name)
        down = torch.randn(of, rank, inputs) / inputs**0.5
        up = torch.randn(of, outputs // of, rank) * 0.02
        lows[name] = LowRank(down=down, up=up, groups=tuple(range(of)), of=of)
    return lows


def seconds(call: Callable[[], object]) -> float:
    """CPU seconds of a call."""
    begun = time.process_time()
    call()
    return time.process_time() - begun


def main() -> None:
    """Print one line for each way."""
    parser = argparse.ArgumentParser(prog="python -m bench.lora", description=__doc__)
    parser.add_argument("--model", default="sana-0.6b-1024")
    parser.add_argument("--blocks", type=int, default=3)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=7)
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    precision = decide("cpu", "fp32")
    engine = choose_engine(None, precision)
    config = replace(PRESETS[given.model], depth=given.blocks)
    state = random_transformer(config, torch.float32).state_dict()

    def build(prepare: Callable[[SanaTransformer], object]) -> SanaTransformer | Runner:
        with torch.device("meta"):
            model = SanaTransformer(config)
        model.load_state_dict({name: part.clone() for name, part in state.items()}, assign=True)
        prepare(model)
        made = edit(model.eval().requires_grad_(False), "transformer", engine)
        assert isinstance(made, SanaTransformer | Runner)
        return made

    def plain(model: SanaTransformer) -> None:
        """Without LoRAs."""

    with torch.device("meta"):
        shape = SanaTransformer(config)
    loras = {
        name: lora_for(shape, what, given.rank)
        for name, what in (("attention", ATTENTION), ("all", EVERYTHING))
    }

    def merged(model: SanaTransformer) -> None:
        add_adapter(model, "0", loras["all"])
        merge_adapters(model)

    def beside(name: str) -> Callable[[SanaTransformer], None]:
        def prepare(model: SanaTransformer) -> None:
            open_layers(model)
            add_adapter(model, "0", loras[name])

        return prepare

    ways: dict[str, Callable[[SanaTransformer], object]] = {
        "without LoRA": plain,
        "merged, all layers": merged,
        "open for swapping, none there": open_layers,
        "beside, attentions": beside("attention"),
        "beside, all layers": beside("all"),
    }
    models = {name: build(prepare) for name, prepare in ways.items()}
    side, words = config.sample_size, 100
    latent = torch.randn(2, config.latent_channels, side, side)
    text = TextStates(torch.randn(2, words, config.text_width), torch.ones(2, words, dtype=torch.bool))

    def step(name: str) -> Tensor:
        with torch.no_grad():
            velocity: Tensor = models[name](latent, torch.tensor([500.0]), texts[name])
        return velocity

    with torch.no_grad():
        texts = {name: model.precompute_text(text) for name, model in models.items()}
    error = (step("beside, all layers") - step("merged, all layers")).norm() / step(
        "merged, all layers"
    ).norm()
    assert error < 1e-4, f"merged and beside differ by {error:.1e}"
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(given.rounds):
        for name in ways:
            times[name].append(seconds(lambda name=name: step(name)))
    print(
        f"{given.blocks} blocks of {given.model}, {side * 32} px, rank {given.rank}, {engine.name}, 1 thread"
    )
    for name, found in times.items():
        ratio = statistics.median(one / base for one, base in zip(found, times["without LoRA"], strict=True))
        print(f"  {name:<32}{min(found):7.2f} s   {(ratio - 1) * 100:+5.1f} %")
    swap = min(
        seconds(lambda: replace_adapters(models["beside, all layers"], {"0": loras["all"]})) for _ in range(5)
    )
    print(f"  another LoRA in its place: {swap * 1e3:.0f} ms")


if __name__ == "__main__":
    main()
