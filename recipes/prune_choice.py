"""Which measure finds the blocks that can go? `python -m recipes.prune_choice --importance FILE [--keep 8 6 4]`.

For every depth, the blocks that each measure of `sanakit importance` keeps, beside all other choices of as many: how
far the pruned network's velocity is from the whole one's, as a share of its mean square, and what its own error is, on
held-out pictures with fixed noise at even times. Nothing is drawn and nothing trained. The first and the last block
stay in any choice, as `sanakit prune` has it.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import torch

from recipes.edge import shallow
from recipes.few_steps import CACHE, PICTURES, SIZE
from recipes.repeats import spread
from recipes.settings import resumable
from sanakit.base.precision import decide
from sanakit.evaluation.importance import MEASURES, BlockImportance, most_important, read_importance
from sanakit.training import DataConfig, RunPhase, TrainConfig, World, sentences
from sanakit.training.objectives.flow_matching import FlowMatching
from sanakit.training.tasks.latents import NoisyBatch
from sanakit.training.tasks.network import load_base
from sanakit.training.tasks.transformer import TransformerTask
from sanakit.training.validation import fixed_batches
from sanakit.transformer import SanaTransformer

RUNS = Path("runs/prune-choice")


@dataclass(frozen=True, kw_only=True)
class Held:
    """Held-out batches with the velocities of the whole network, and what makes velocities of another."""

    task: TransformerTask
    whole: SanaTransformer
    batches: list[NoisyBatch]
    velocities: list[torch.Tensor]

    @torch.no_grad()
    def apart(self, network: SanaTransformer) -> tuple[float, float]:
        """The mean square of the change of the velocity over that of the velocity, and the flow's loss."""
        flow = FlowMatching(self.task.config, network, self.task.ratio, self.task.spec.schedule.shift)
        changed, power, errors = 0.0, 0.0, []
        for batch, wanted in zip(self.batches, self.velocities, strict=True):
            found, target = flow.predict(batch)
            changed += float((found - wanted).double().square().sum())
            power += float(wanted.double().square().sum())
            errors.append((found - target).square().flatten(1).mean(1))
        return changed / power, float(torch.cat(errors).mean())


@torch.no_grad()
def held_out(
    base: str, count: int, *, pictures: Path = PICTURES, cache: Path = CACHE, size: int = SIZE
) -> Held:
    """The held-out pictures of a set, and the velocities of the whole network on them."""
    config = TrainConfig(
        folder=RUNS, base=base, batch=1, phases=(RunPhase(steps=1, size=size),), validate=1, dtype="fp32",
        data=DataConfig(path=pictures, cache=cache, square=True, held=count),
    )  # fmt: skip
    precision = decide(dtype="fp32")
    task = TransformerTask(config, precision, World(device=precision.device), print)
    for notice in sentences(task.prepare()):
        print(notice, flush=True)
    whole = load_base(task.spec, torch.float32, precision.device).eval()
    flow = FlowMatching(config, whole, task.ratio, task.spec.schedule.shift)
    batches = list(fixed_batches(flow, task.data, 0))
    return Held(task=task, whole=whole, batches=batches, velocities=[flow.predict(one)[0] for one in batches])


def choices(depth: int, keep: int) -> Iterator[tuple[int, ...]]:
    """All blocks that may stay: the first, the last, and any of those between."""
    for middle in combinations(range(1, depth - 1), keep - 2):
        yield 0, *middle, depth - 1


def rows(held: Held, found: Sequence[BlockImportance], keep: int) -> Iterator[str]:
    """Rows of the table for a depth: a row for each measure, chance, and the best there is."""
    depth = len(found)
    apart = {blocks: held.apart(shallow(held.whole, blocks).eval()) for blocks in choices(depth, keep)}
    ranked = sorted(apart, key=lambda blocks: apart[blocks][0])
    chosen = {f"by {name}": tuple(most_important(found, keep, by=name)) for name in MEASURES}
    for name, blocks in [*chosen.items(), ("best of all", ranked[0])]:
        change, loss = apart[blocks]
        place = f"{ranked.index(blocks) + 1} of {len(ranked)}"  # from the nearest to the whole network
        yield f"| {keep} | {name} | {', '.join(map(str, blocks))} | {change:.3f} | {loss:.3f} | {place} |"
    changes, losses = zip(*apart.values(), strict=True)
    yield f"| {keep} | at random | | {spread(changes)} | {spread(losses)} | |"


@resumable
def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--importance", type=Path, required=True, help="what `sanakit importance --json` wrote"
    )
    parser.add_argument("--model", default="toybox")
    parser.add_argument("--keep", type=int, nargs="+", default=[8, 6, 4])
    parser.add_argument("--held", type=int, default=32)
    given = parser.parse_args()
    found, _ = read_importance(given.importance)
    held = held_out(given.model, given.held)
    tried = sum(math.comb(len(found) - 2, keep - 2) for keep in given.keep)
    print(
        f"{tried} networks on {given.held} pictures; the whole one's loss is {held.apart(held.whole)[1]:.3f}\n"
    )
    print(
        "| blocks | chosen | those that stay | change of the velocity | loss | place |",
        "|---" * 6 + "|",
        sep="\n",
    )
    for keep in given.keep:
        for row in rows(held, found, keep):
            print(row, flush=True)


if __name__ == "__main__":
    main()
