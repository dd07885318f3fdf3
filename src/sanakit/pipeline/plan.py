"""The plan of a request: everything that model and request decide together, made once, before any network runs.

Nothing in a plan is open: sizes, noise levels, guidance and seeds are final numbers. `denoiser.py` and `decoder.py`
carry it out, for one image after the other or, in a batch, for the images of many plans.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor

from sanakit.base.errors import RequestError
from sanakit.base.sizes import Size, nearest_bucket
from sanakit.flow import ITERATIONS, SOLVERS, Clock, Guidance, Schedule, SolverSpec
from sanakit.pipeline.edit_plan import EditPlan, canvas_size, drawn_side, edit_notes, plan_edit
from sanakit.pipeline.inputs import require_inputs
from sanakit.pipeline.loras import check_fit
from sanakit.pipeline.noise_levels import noise_levels
from sanakit.pipeline.regions import Box, tokens_read
from sanakit.pipeline.request import Defaults, ImageRequest
from sanakit.pipeline.steering import PlannedControl, control_notes, plan_controls
from sanakit.weights import ModelSpec

T = TypeVar("T")

PAG_BLOCKS = {28: (14,), 20: (8,)}
"""Depth -> the blocks that the official code perturbs; other depths take the middle one."""

LEAST_NOISE = 1.55
"""A first angle below it leaves more than 2 % of the picture in what should be pure noise, and is remarked."""

DIFFUSERS_PAG_BLOCKS = (0,)
"""The blocks that diffusers' SanaPAGPipeline perturbs by default ("transformer_blocks.0")."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How the images of a request are drawn.

    request            the request with every field filled
    size               of the images
    drawn              the size that the transformer draws: a trained one if model and request want it
    latent_shape       [C, h, w]
    schedule, solver   how the checkpoint is sampled, and by what
    sigmas             noise levels, steps + 1 falling numbers; one alone for an edit of strength 0
    clock              from a noise level to the time that the transformer reads
    guidance           scales of CFG (1 without an unconditional branch) and PAG, and the interval of CFG
    guidance_input     the guidance scale as an input of networks that read it
    guides             whether guidance runs an unconditional branch, and isn't such an input
    pag_blocks         the transformer blocks that PAG perturbs
    instruct           whether the instruction that the model was trained with goes before the prompt
    seeds              one for each image
    notes              sentences about parts of the request that have no effect or an unusual one
    edit               how a picture is changed; None if one is drawn from noise
    reads              whose words each token reads, [N] int64: those of region k, 0 for none's; None without regions
    controls           what steers, each with its ControlNet as it is on disk
    """

    request: ImageRequest
    size: Size
    drawn: Size
    latent_shape: tuple[int, int, int]
    schedule: Schedule
    solver: SolverSpec
    sigmas: tuple[float, ...]
    clock: Clock
    guidance: Guidance
    guidance_input: float
    guides: bool
    pag_blocks: tuple[int, ...]
    instruct: bool
    seeds: range
    notes: tuple[str, ...]
    edit: EditPlan | None = None
    reads: Tensor | None = None
    controls: tuple[PlannedControl, ...] = ()

    @property
    def steps(self) -> int:
        """Steps of the solver, after those of an inversion."""
        return (len(self.sigmas) - 1) * (1 + ITERATIONS * self.inverts)

    @property
    def inverts(self) -> bool:
        """Whether it is an edit by inversion."""
        return self.edit is not None and self.edit.words is not None and self.edit.words.inverts

    def free_below(self, device: torch.device) -> Tensor | None:
        """Return `EditPlan.free_below` on a device."""
        free = None if self.edit is None else self.edit.free_below
        return None if free is None else free.to(device)

    def of_source(self) -> Plan:
        """Make an edit's plan for the words of the source: asked at the same points, without regions."""
        assert self.edit is not None and self.edit.words is not None
        words, uncond = self.edit.words, self.guides and self.edit.words.guidance > 1
        return replace(
            self,
            request=self.request.replace(prompt=words.prompt, negative="", regions=(), source_prompt=None,
                                         source_guidance=None, averages=None, how=None),
            guidance=replace(self.guidance, scale=words.guidance if uncond else 1.0, pag=0.0),
            guidance_input=words.guidance,
            reads=None,
        )  # fmt: skip

    @property
    def decoded(self) -> Size:
        """The size to scale decoded pixels to: that of the images, or what was drawn if a picture is changed."""
        return self.size if self.edit is None else self.drawn

    @property
    def uncond(self) -> bool:
        """Whether an unconditional branch runs."""
        return self.guidance.scale > 1

    @property
    def branches(self) -> int:
        """Passes through the transformer in one batch, at most."""
        return 1 + self.uncond + (self.guidance.pag > 0)


def make_plan(spec: ModelSpec, request: ImageRequest) -> Plan:
    """Decide how a model draws a request.

    Raises RequestError if the size doesn't fit the autoencoder and the patches, if a block to perturb is absent, if
    an input file is known by name and hash only, or if a LoRA is for another transformer; ConfigError or WeightsError
    for a ControlNet that doesn't fit.
    """
    require_inputs(request)
    request = request.complete(_defaults(spec, request))
    _check_blocks(spec, request)
    check_fit(request.loras, spec.transformer)
    size = Size(_filled(request.width), _filled(request.height))
    drawn, ratio = _drawn_size(spec, size, request.bins), spec.autoencoder.ratio
    edit = plan_edit(request, drawn, ratio)
    solver, steps, scale = SOLVERS[_filled(request.solver)], _filled(request.steps), _filled(request.guidance)
    # Models that read the guidance scale as an input have no unconditional branch.
    uncond = scale > 1 and not spec.transformer.guidance_embed
    guidance = Guidance(scale=scale if uncond else 1.0, interval=request.cfg_interval, pag=request.pag)
    sigmas, clock = noise_levels(spec, request, solver, steps, edit)
    if edit is not None:
        _check_inversion(spec, edit)
    controls = plan_controls(spec, request.controls, len(sigmas) - 1, clock)
    return Plan(
        request=request,
        size=size if edit is None else edit.canvas.size,
        drawn=drawn,
        latent_shape=(spec.transformer.latent_channels, drawn.height // ratio, drawn.width // ratio),
        schedule=spec.schedule,
        solver=solver,
        sigmas=sigmas,
        clock=clock,
        guidance=guidance,
        guidance_input=scale,
        guides=not spec.transformer.guidance_embed,
        pag_blocks=_pag_blocks(spec, request),
        instruct=spec.instruct and request.chi,
        seeds=range(request.seed, request.seed + request.count),
        notes=(
            *_notes(spec, request, solver, uncond),
            *([] if edit is None else edit_notes(edit)),
            *control_notes(controls, len(sigmas) - 1),
        ),
        edit=edit,
        reads=_reads(spec, request, size, drawn, edit),
        controls=controls,
    )


def defaults_of(spec: ModelSpec) -> Defaults:
    """Return what a model fills into the open fields of a request."""
    side = spec.transformer.sample_size * spec.autoencoder.ratio
    steps = 2 if spec.schedule.kind == "scm" else 20
    return Defaults(width=side, height=side, steps=steps, solver=spec.schedule.solver)


def _defaults(spec: ModelSpec, request: ImageRequest) -> Defaults:
    """Return those of the model; for an edit with a size in the shape of its canvas."""
    found = defaults_of(spec)
    if request.source is None:
        return found
    size = drawn_side(canvas_size(request), found.width, spec.autoencoder.ratio * spec.transformer.patch_size)
    return replace(found, width=size.width, height=size.height)


def _filled(value: T | None) -> T:
    """Return a field of a complete request."""
    assert value is not None
    return value


def _drawn_size(spec: ModelSpec, size: Size, bins: bool) -> Size:
    if spec.bins and bins:
        height, width = nearest_bucket(spec.transformer.sample_size * 32, size.height, size.width)
        size = Size(width, height)
    return size.check(spec.autoencoder.ratio * spec.transformer.patch_size)


def _reads(
    spec: ModelSpec, request: ImageRequest, size: Size, drawn: Size, edit: EditPlan | None
) -> Tensor | None:
    """Return whose words each token reads. Raises RequestError for a region outside of the picture."""
    if not request.regions:
        return None
    step = spec.autoencoder.ratio * spec.transformer.patch_size
    if edit is not None:
        return tokens_read(request.regions, edit.canvas.size, edit.canvas.placed, drawn, step)
    scale = max(size.width / drawn.width, size.height / drawn.height)  # as `decoder.fit` has it
    cut = ((drawn.width * scale - size.width) / 2, (drawn.height * scale - size.height) / 2) * 2

    def placed(box: Box) -> Box:
        left, top, right, bottom = ((side + more) / scale for side, more in zip(box, cut, strict=True))
        return left, top, right, bottom

    return tokens_read(request.regions, size, placed, drawn, step)


def _pag_blocks(spec: ModelSpec, request: ImageRequest) -> tuple[int, ...]:
    """Return the blocks that PAG perturbs; in a folder made for it, those of diffusers' pipeline by default."""
    if request.pag_blocks is not None:
        return request.pag_blocks
    depth = spec.transformer.depth
    return DIFFUSERS_PAG_BLOCKS if spec.pag else PAG_BLOCKS.get(depth, (depth // 2,))


def _check_blocks(spec: ModelSpec, request: ImageRequest) -> None:
    depth = spec.transformer.depth
    absent = [block for block in request.pag_blocks or () if block >= depth]
    if absent:
        raise RequestError(
            f"there is no block {absent[0]} to perturb: the transformer has blocks 0 to {depth - 1}"
        )


def _check_inversion(spec: ModelSpec, edit: EditPlan) -> None:
    """Refuse to invert a consistency model."""
    if edit.words is not None and edit.words.inverts and spec.schedule.kind == "scm":
        raise RequestError(
            "how=inversion needs a flow model, and this is one of few steps (Sprint): leave it out for FlowEdit"
        )


def _notes(spec: ModelSpec, request: ImageRequest, solver: SolverSpec, uncond: bool) -> list[str]:
    notes = list[str]()
    if request.negative and not uncond:
        notes.append("the negative prompt has no effect without classifier-free guidance.")
    if request.pag_blocks and not request.pag:
        notes.append("pag_blocks have no effect without a pag scale.")
    if request.source is None and request.angles and request.angles[0] < LEAST_NOISE:
        notes.append(
            f"the first angle {request.angles[0]:g} is taken for pure noise, which is 1.5708: "
            "expect a worse picture than from there."
        )
    if request.how == "inversion" and request.count > 1:
        notes.append(f"an edit by inversion draws no noise: its {request.count} pictures are the same.")
    if "<lora:" in request.prompt:
        notes.append(
            "<lora:...> in a prompt is read as words: name the file by --lora FILE:0.8, or in loras."
        )
    notes += [note for one in request.loras if one.lora is not None for note in one.lora.notes]
    mismatch = solver.mismatch(spec.schedule)
    return notes if mismatch is None else [*notes, mismatch]
