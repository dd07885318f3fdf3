"""How much each block of a transformer does, for pruning (SANA-1.5, arXiv 2501.18427, section 3.3).

Two measures, over prompts and noise levels of real drawings:
  similarity   cosine between a token before and after the block, as published: a block that hardly turns its tokens
               can go
  rise         what leaving the block out does to the velocity: the mean square of the change over that of the velocity

The second costs a pass of the network per block and level, and is the one that knows what later blocks make of it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from sanakit.adapt.runner import unwrapped
from sanakit.base.errors import RequestError
from sanakit.base.files import atomic_write
from sanakit.base.json_text import parse_json
from sanakit.base.seeds import noise_stream
from sanakit.flow import Denoise, State, drive
from sanakit.pipeline.denoiser import plan_denoiser
from sanakit.pipeline.model import Model
from sanakit.pipeline.plan import make_plan
from sanakit.pipeline.prompt import encode_prompt
from sanakit.pipeline.request import ImageRequest

MEASURES = ("rise", "similarity")


@dataclass(frozen=True, kw_only=True)
class BlockImportance:
    """The measures of a block, counted from 0; see above."""

    block: int
    similarity: float
    rise: float

    def by(self, measure: str) -> float:
        """Return how important it is by a measure of `MEASURES`: larger is more."""
        return self.rise if measure == "rise" else 1.0 - self.similarity


class BlockMeasures:
    """Draws with a model and measures all of its blocks on the way."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.blocks: list[nn.Module] = list(cast(nn.ModuleList, unwrapped(model.parts.transformer).blocks))
        self.similar = torch.zeros(len(self.blocks), dtype=torch.float64)
        self.changed = torch.zeros(len(self.blocks), dtype=torch.float64)
        self.count = 0

    def draw(self, request: ImageRequest) -> Iterator[State]:
        """Draw a request, and yield a state after each step, at which everything was measured.

        Raises RequestError and NumericsError as drawing does.
        """
        parts = self.model.parts
        plan, device = make_plan(self.model.spec, request), self.model.precision.device
        prompt = encode_prompt(parts.text, self.model.spec, plan).to(device)
        noise = noise_stream(request.seed, plan.latent_shape, device)
        ask = plan_denoiser(parts.transformer, prompt, plan)
        solver = plan.solver.run(noise(-1), list(plan.sigmas), plan.schedule, noise)
        yield from drive(solver, self.measured(ask))

    def measured(self, ask: Denoise) -> Denoise:
        """Return the same answers, with all blocks measured at each point."""

        def answer(x: Tensor, sigma: float, step: int) -> Tensor:
            with self._watching():
                velocity = ask(x, sigma, step)
            power = float(velocity.double().square().mean())
            for number, block in enumerate(self.blocks):
                with _left_out(block):
                    other = ask(x, sigma, step)
                self.changed[number] += float((other - velocity).double().square().mean()) / power
            self.count += 1
            return velocity

        return answer

    def importance(self) -> list[BlockImportance]:
        """Return the means over all points so far."""
        pairs = zip(self.similar / self.count, self.changed / self.count, strict=True)
        return [
            BlockImportance(block=number, similarity=float(similar), rise=float(changed))
            for number, (similar, changed) in enumerate(pairs)
        ]

    @contextmanager
    def _watching(self) -> Iterator[None]:
        def hook(number: int) -> Callable[..., None]:
            def see(block: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
                before, after = inputs[0].float(), output.float()
                self.similar[number] += float(F.cosine_similarity(before, after, dim=-1).mean())

            return see

        handles = [block.register_forward_hook(hook(number)) for number, block in enumerate(self.blocks)]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


@contextmanager
def _left_out(block: nn.Module) -> Iterator[None]:
    handle = block.register_forward_hook(lambda _, inputs, output: inputs[0])
    try:
        yield
    finally:
        handle.remove()


def most_important(
    found: Sequence[BlockImportance], keep: int, *, by: str = "rise", ends: int = 1
) -> list[int]:
    """Return the numbers of the `keep` blocks that stay: the first and last `ends`, then the most important ones.

    Raises RequestError for numbers that don't fit and a measure that isn't in `MEASURES`.
    """
    depth = len(found)
    if by not in MEASURES:
        raise RequestError(f"unknown measure {by!r}: choose one of {', '.join(MEASURES)}")
    if not max(1, 2 * ends) <= keep < depth:
        raise RequestError(
            f"keep is {keep}; of {depth} blocks, {ends} kept at each end, {max(1, 2 * ends)} to {depth - 1} can stay"
        )
    fixed = {*range(ends), *range(depth - ends, depth)}
    others = sorted((one for one in found if one.block not in fixed), key=lambda one: -one.by(by))
    return sorted(fixed | {one.block for one in others[: keep - len(fixed)]})


def write_plot(path: Path, found: Sequence[BlockImportance], title: str) -> None:
    """Draw both measures over the blocks as bars. Raises RequestError without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise RequestError("a plot needs matplotlib: pip install matplotlib, or leave --plot out") from None
    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    names = {"rise": "change of the velocity without it", "similarity": "1 - similarity of tokens"}
    for axes, measure in zip(figure.subplots(2, 1, sharex=True), MEASURES, strict=True):
        axes.bar([one.block for one in found], [one.by(measure) for one in found], color="tab:green")
        axes.set_title(names[measure], fontsize=9)
        axes.set_yscale("log")
    axes.set_xlabel("block")
    figure.suptitle(title, fontsize=10)
    atomic_write(path, lambda draft: figure.savefig(draft, format="png", dpi=120))


def to_json(found: Sequence[BlockImportance], weights: str) -> str:
    """Return the measures as JSON. weights: the fingerprint of the model that they are of."""
    return json.dumps({"weights": weights, "blocks": [asdict(one) for one in found]})


def read_importance(path: Path) -> tuple[list[BlockImportance], str]:
    """Inverse of `to_json`, from a file: the measures and the fingerprint. Raises RequestError."""
    try:
        told = parse_json(path.read_bytes())
        blocks = [
            BlockImportance(block=int(b["block"]), similarity=float(b["similarity"]), rise=float(b["rise"]))
            for b in told["blocks"]
        ]
        weights = str(told["weights"])
    except OSError as error:
        raise RequestError(f"{path} can't be read: {error.strerror or error}") from None
    except (ValueError, KeyError, TypeError):
        raise RequestError(f"{path} isn't what `sanakit importance --json` writes") from None
    if [one.block for one in blocks] != list(range(len(blocks))) or not blocks:
        raise RequestError(f"{path} doesn't measure every block once")
    return blocks, weights
