"""Stage two: from noise to the latent of an image, by the solver, guidance and transformer of a plan.

Letters: B branches of a step (uncond, cond, perturbed), C latent channels, h/w latent position. Solver and guidance are
float32; the noise comes from a CPU generator, so it is the same on every device.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from sanakit.adapt.runner import unwrapped
from sanakit.base.seeds import noise_stream
from sanakit.base.sentinel import run_finite
from sanakit.base.text_states import TextStates
from sanakit.flow import (
    FlowEdit,
    Noise,
    PairWalk,
    Solver,
    State,
    Walk,
    edit_by_inversion,
    flow_edit,
    keep_source,
)  # fmt: skip
from sanakit.pipeline.batching import BatchedDenoiser, Branches, DenoiserInput, Pass
from sanakit.pipeline.components import Transformer
from sanakit.pipeline.plan import Plan
from sanakit.pipeline.prompt import PromptStates
from sanakit.pipeline.steering import LoadedControl, Steering
from sanakit.transformer import ControlNet, TextKV


def denoise(
    transformer: Transformer,
    prompt: PromptStates,
    plan: Plan,
    seed: int,
    device: torch.device,
    source: Tensor | None = None,
    controls: Sequence[LoadedControl] = (),
) -> Iterator[State]:
    """Yield the solver's states for one image; the last `x` is the latent [1, C, h, w].

    source: the latent [1, C, h, w] float32 of the picture that the plan changes. controls: of the plan, loaded.
    Raises NumericsError for NaN or Inf.
    """
    for (state,) in denoise_together(transformer, prompt, plan, (seed,), device, source, controls):
        yield state


def denoise_together(
    transformer: Transformer,
    prompt: PromptStates,
    plan: Plan,
    seeds: Sequence[int],
    device: torch.device,
    source: Tensor | None = None,
    controls: Sequence[LoadedControl] = (),
) -> Iterator[list[State]]:
    """Yield the states of several images of a plan after each step, one forward pass for all of them.

    Each is the image that `denoise` draws but for rounding (see `batching`), one alone to the bit. The rest as there.
    """
    denoisers = plan_denoisers(transformer, prompt.to(device), plan, controls)
    drawings = [begin(denoisers, plan, seed, device, source) for seed in seeds]
    batched = BatchedDenoiser(transformer)
    while not drawings[0].finished:
        alone = len(drawings) == 1
        states = [drawings[0].advance()] if alone else _advance_together(batched, drawings)
        known = [
            state for state in states if state is not None
        ]  # all of them, or none: they are in the same step
        if known:
            yield known


def _advance_together(batched: BatchedDenoiser, drawings: Sequence[Drawing]) -> list[State | None]:
    """Make a step of several images in one pass. One whose numbers broke makes it alone, which says in which layer."""
    inputs = [drawing.inputs() for drawing in drawings]
    velocities = iter(batched.predict([each for own in inputs for each in own]))
    given = [[next(velocities) for _ in own] for own in inputs]
    return [
        drawing.answer(own) if all(bool(torch.isfinite(one).all()) for one in own) else drawing.advance()
        for drawing, own in zip(drawings, given, strict=True)
    ]


class Drawing:
    """One image on its way: what its solver asks now, and the state after each answer.

    `advance` makes a step of it alone; the `inputs` of many can share a pass (`batching.BatchedDenoiser`).
    """

    def __init__(self, walk: Walk | PairWalk, denoisers: Sequence[Denoiser]) -> None:
        self._walk, self._denoisers = walk, tuple(denoisers)

    @property
    def finished(self) -> bool:
        """Whether nothing is asked any more: the last state holds the latent."""
        return self._walk.query is None

    def inputs(self) -> list[DenoiserInput]:
        """Return what the next step needs: one input, or two of an edit by words, the source's and the target's."""
        return [denoiser.input_at(x, sigma, step) for denoiser, x, sigma, step in self._points()]

    def answer(self, velocities: Sequence[Tensor]) -> State | None:
        """Go on with the velocities [1, C, h, w] that were asked for; None between the averages of a step."""
        if isinstance(self._walk, Walk):
            return self._walk.answer(velocities[0])
        source, target = velocities
        return self._walk.answer(source, target)

    def advance(self) -> State | None:
        """Answer it alone. Raises NumericsError, which names the layer, for NaN or Inf."""
        return self.answer([denoiser(x, sigma, step) for denoiser, x, sigma, step in self._points()])

    def _points(self) -> list[tuple[Denoiser, Tensor, float, int]]:
        query = self._walk.query
        assert query is not None, "the image is finished"
        pairs = zip(self._denoisers[-len(query.points) :], query.points, strict=True)
        return [(denoiser, x, query.sigma, query.step) for denoiser, x in pairs if x is not None]


def begin(
    denoisers: Sequence[Denoiser], plan: Plan, seed: int, device: torch.device, source: Tensor | None = None
) -> Drawing:
    """Return an image before its first step. denoisers: of the plan, for any number of seeds. source: see `denoise`."""
    noise = noise_stream(seed, plan.latent_shape, device)
    if source is None or len(denoisers) == 1:
        return Drawing(Walk(_begin(plan, noise, source)), denoisers)
    if plan.inverts:
        free = plan.free_below(source.device)
        return Drawing(Walk(edit_by_inversion(source, plan.sigmas, free_below=free)), denoisers)
    return Drawing(PairWalk(_begin_words(plan, noise, source)), denoisers)


def plan_denoisers(
    transformer: Transformer, prompt: PromptStates, plan: Plan, controls: Sequence[LoadedControl] = ()
) -> tuple[Denoiser, ...]:
    """Return what answers the images of a plan: one denoiser, or for an edit by words that of the source's first.

    prompt: on the device of the transformer.
    """
    own = plan_denoiser(transformer, prompt, plan, controls)
    if prompt.source is None:
        return (own,)
    return plan_denoiser(transformer, prompt.source, plan.of_source(), controls), own


def plan_denoiser(
    transformer: Transformer, prompt: PromptStates, plan: Plan, controls: Sequence[LoadedControl] = ()
) -> Denoiser:
    """Return what answers a solver, with the keys and values of every set of branches that the plan needs."""
    needed = dict.fromkeys(plan.guidance.branches(sigma) for sigma in plan.sigmas[:-1])

    def texts(network: Transformer | ControlNet) -> dict[Branches, TextKV]:
        return {branches: precompute_text(network, prompt, branches, plan.reads) for branches in needed}

    steering = tuple(
        Steering(
            planned=control.planned, network=control.network,
            latent=control.latent.to(prompt.cond.states.device), text_kv=texts(control.network),
        )
        for control in controls
    )  # fmt: skip
    return Denoiser(transformer=transformer, plan=plan, text_kv=texts(transformer), steering=steering)


def _begin_words(plan: Plan, noise: Noise, source: Tensor) -> FlowEdit:
    """FlowEdit of a plan, begun at the source."""
    assert plan.edit is not None and plan.edit.words is not None
    return flow_edit(source, plan.sigmas, noise, plan.edit.words.averages, plan.free_below(source.device))


def _begin(plan: Plan, noise: Noise, source: Tensor | None) -> Solver:
    """Return the solver of a plan, begun at noise, or at the noised source, of which it keeps what it must."""
    x = noise(-1)
    if source is not None:
        x = plan.solver.start(source, x, plan.sigmas[0])
    solver = plan.solver.run(x, list(plan.sigmas), plan.schedule, noise)
    free = plan.free_below(x.device)
    return solver if source is None or free is None else keep_source(solver, source, free)


@dataclass(frozen=True, kw_only=True, eq=False)
class Denoiser:
    """The transformer as solvers want it: the guided velocity at a point, all branches in one batch.

    text_kv: keys and values of the texts of each set of branches that a step of the plan needs. steering: what
    ControlNets add.
    """

    transformer: Transformer
    plan: Plan
    text_kv: Mapping[Branches, TextKV]
    steering: tuple[Steering, ...] = ()

    def input_at(self, x: Tensor, sigma: float, step: int) -> DenoiserInput:
        """Return the input of a step at x [1, C, h, w]."""
        branches = self.plan.guidance.branches(sigma)
        return DenoiserInput(
            plan=self.plan, branches=branches, text_kv=self.text_kv[branches], x=x, sigma=sigma, step=step,
            steering=self.steering,
        )  # fmt: skip

    @torch.no_grad()
    def __call__(self, x: Tensor, sigma: float, step: int) -> Tensor:
        """Return the velocity [1, C, h, w] float32 at x [1, C, h, w]; raise NumericsError for NaN or Inf."""
        own = self.input_at(x, sigma, step)
        alone = Pass.of([own], own.text_kv, self.transformer.config.guidance_embed)
        stage = f"denoise step {step + 1}"
        velocities = run_finite(unwrapped(self.transformer), lambda: alone.run(self.transformer), stage)
        return own.combine(velocities)


@torch.no_grad()
def precompute_text(
    transformer: Transformer | ControlNet,
    prompt: PromptStates,
    branches: Branches,
    reads: Tensor | None = None,
) -> TextKV:
    """Return keys and values of the branches' texts, without padding: it has no weight in the attention.

    reads: whose words each token reads, for a picture with regions; see `Plan`.
    """
    text = TextStates.join([prompt.branch(name) for name in branches]).trimmed()
    text_kv: TextKV = transformer.precompute_text(text)
    if not bool(torch.isfinite(_largest(text_kv)).all()):  # once more, to find the layer
        run_finite(
            unwrapped(transformer), lambda: _largest(transformer.precompute_text(text)), "denoise step 1"
        )
    if reads is not None and prompt.owners is not None:
        return replace(text_kv, mask=_region_mask(text_kv, prompt, branches, reads))
    return text_kv.unpadded()


def _region_mask(text_kv: TextKV, prompt: PromptStates, branches: Branches, reads: Tensor) -> Tensor:
    """Return which states each token reads, [M, N, L] by sample: all but words of other boxes; all of the null text."""
    first = text_kv.blocks[0]
    samples, length, device = range(len(branches)), first.key.shape[2], first.key.device
    assert prompt.owners is not None
    owners = F.pad(prompt.owners, (0, length - len(prompt.owners)), value=-1)[None, :]  # -1: padding
    own = ((owners == 0) | (owners == reads[:, None])).to(device)  # [N, L]
    rows = samples if first.rows is None else first.rows.tolist()
    null = own.new_ones(len(rows), length) if text_kv.mask is None else text_kv.mask
    masks = [
        null[index].expand_as(own) if prompt.is_null(branches[row]) else own for index, row in enumerate(rows)
    ]
    return torch.stack(masks) if masks else own.new_ones(0, *own.shape)


def _largest(text_kv: TextKV) -> Tensor:
    """Return the largest key and value of every block, which are NaN or Inf if one of them is."""
    parts = [part for kv in text_kv.blocks for part in (kv.key, kv.value, kv.constant) if part is not None]
    return torch.stack([part.abs().amax() for part in parts if part.numel()])
