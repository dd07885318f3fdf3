"""The three stages as plain functions: text to states, noise to latent, latent to picture.

Letters: B branches of one step (uncond, cond, perturbed), L text tokens, C latent channels, h/w latent position,
H/W pixels drawn, and the size asked for may be smaller (the drawn size comes from a bucket of trained sizes).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F  # noqa: N812
from PIL import Image
from torch import Tensor, nn

from sanakit.autoencoder import DCAE, decode_tiled
from sanakit.base.errors import RequestError
from sanakit.base.grid import check_size, nearest_bucket
from sanakit.base.seeds import noise_stream
from sanakit.base.sentinel import check_finite, find_nonfinite_layer
from sanakit.base.values import TextStates
from sanakit.flow import SOLVERS, Branch, Clock, Guided, Predict, SolverSpec, State, drive
from sanakit.pipeline.memory import needs_tiles, total_bytes
from sanakit.pipeline.request import ImageRequest
from sanakit.text import CHI, Instruction, TextEncoder, null_states, words_of
from sanakit.transformer import SanaTransformer, TextKV, TransformerConfig
from sanakit.weights import ModelSpec, read_words

PAG_BLOCKS = {28: (14,), 20: (8,)}
"""Depth -> the blocks that the official code perturbs; other depths take the middle one."""

DIFFUSERS_PAG_BLOCKS = (0,)
"""What diffusers' SanaPAGPipeline perturbs where it is not told otherwise ("transformer_blocks.0")."""


@dataclass(frozen=True)
class Prompt:
    """The states of a prompt [1, L, C], and of what stands for no prompt, where guidance needs it."""

    text: TextStates
    null: TextStates | None = None

    def branch(self, name: Branch) -> TextStates:
        """The states that a branch of guidance reads."""
        return self.null if name == "uncond" and self.null is not None else self.text

    def to(self, device: torch.device) -> Prompt:
        """The same on a device."""
        return Prompt(self.text.to(device=device), None if self.null is None else self.null.to(device=device))


def instruction_of(spec: ModelSpec, request: ImageRequest) -> Instruction | None:
    """The text put before the prompt: where the model was trained with one and the request does not forbid it."""
    return CHI if spec.instruct and request.chi else None


def needs_null(spec: ModelSpec, request: ImageRequest) -> bool:
    """Whether a null branch will run. Models that read the guidance scale as an input have none."""
    return not spec.transformer.guidance_embed and request.guidance is not None and request.guidance > 1


def unknown_words(spec: ModelSpec, prompt: str) -> list[str]:
    """The words of a prompt, each once, that are not on the list of a model that ships one (`words.txt`).

    Models with a general vocabulary, such as Gemma's, ship none: what they read in pieces they know as well.
    """
    learnt = read_words(spec)
    return [word for word in dict.fromkeys(words_of(prompt)) if word not in learnt] if learnt else []


@torch.no_grad()
def encode_text(encoder: TextEncoder, spec: ModelSpec, request: ImageRequest) -> Prompt:
    """Stage one: the states of the prompt and, for guidance, of the negative prompt in the checkpoint's dialect."""
    dialect = spec.dialect
    text = encoder.encode([request.prompt], instruction_of(spec, request), lowercase=dialect.lowercase)
    check_finite(text.states, "the text encoder")
    if not needs_null(spec, request):
        return Prompt(text)
    return Prompt(text, null_states(encoder, dialect, text.mask, request.negative))


def drawn_size(spec: ModelSpec, request: ImageRequest) -> tuple[int, int]:
    """(width, height) in pixels that the transformer draws: a trained size where model and request ask for it.

    Raises RequestError where the size does not fit the autoencoder and the patches.
    """
    width, height = request.width or 0, request.height or 0
    step = spec.autoencoder.ratio * spec.transformer.patch_size
    if spec.bins and request.bins:
        height, width = nearest_bucket(spec.transformer.sample_size * 32, height, width)
    check_size(width, height, step)
    return width, height


@dataclass(frozen=True, kw_only=True)
class Denoiser:
    """The transformer as `flow.Guided` wants it: velocities per branch, from one batch.

    kept: what the transformer keeps of the text, per set of branches; filled at the first step of each.
    """

    transformer: SanaTransformer
    prompt: Prompt
    time: Clock
    guidance: float
    pag_blocks: tuple[int, ...]
    kept: dict[tuple[Branch, ...], TextKV] = field(default_factory=dict)

    @torch.no_grad()
    def __call__(self, x: Tensor, sigma: float, index: int, branches: tuple[Branch, ...]) -> list[Tensor]:
        """x [1, C, h, w] -> one velocity [1, C, h, w] per branch; raises NumericsError for NaN or Inf."""
        count, stage = len(branches), f"denoise step {index + 1}"
        if branches not in self.kept:
            watched(self.transformer, lambda: self._read(branches), stage)
        # One time for all branches: its embedding is computed once, and norms share their modulation.
        time = torch.full((1,), self.time(sigma, index), device=x.device)
        scale = torch.full((1,), self.guidance, device=x.device)
        rows = torch.tensor([name == "perturbed" for name in branches], device=x.device)
        perturbed = dict.fromkeys(self.pag_blocks, rows) if "perturbed" in branches else None

        def run() -> Tensor:
            return self.transformer(  # type: ignore[no-any-return]
                x.expand(count, -1, -1, -1), time, self.kept[branches],
                guidance=scale if self.transformer.config.guidance_embed else None, perturbed=perturbed,
            )  # fmt: skip

        velocity = watched(self.transformer, run, stage)
        return list(velocity.float().split(1))

    def _read(self, branches: tuple[Branch, ...]) -> Tensor:
        """Keep keys and values of the branches' texts, without padding: it has no weight in the attention.

        Returns the largest of each, which is NaN or Inf where one of them is.
        """
        text = TextStates.join([self.prompt.branch(name) for name in branches]).trimmed()
        text_kv = self.transformer.precompute_text(text)
        real = text_kv.mask is None or bool(text_kv.mask.all())
        self.kept[branches] = replace(text_kv, mask=None) if real else text_kv
        parts = [
            part for kv in text_kv.blocks for part in (kv.key, kv.value, kv.constant) if part is not None
        ]
        return torch.stack([part.abs().amax() for part in parts if part.numel()])


def denoise(
    transformer: SanaTransformer,
    spec: ModelSpec,
    prompt: Prompt,
    request: ImageRequest,
    device: torch.device,
) -> Iterator[State]:
    """Stage two: the solver's states for a completed request of one picture; the last `x` is the latent [1, C, h, w].

    Solver and guidance are float32; the noise comes from a CPU generator, so it is the same on every device.
    """
    width, height = drawn_size(spec, request)
    ratio = spec.autoencoder.ratio
    fresh = noise_stream(
        request.seed, (spec.transformer.latent_channels, height // ratio, width // ratio), device
    )
    predict: Predict = Denoiser(
        transformer=transformer,
        prompt=prompt.to(device),
        time=model_time(spec, request),
        guidance=request.guidance or 0.0,
        pag_blocks=pag_blocks(spec.transformer, request, spec.pag),
    )
    scale = (request.guidance or 1.0) if needs_null(spec, request) else 1.0
    guided = Guided(predict=predict, scale=scale, interval=request.cfg_interval, pag=request.pag)
    solver = solver_of(spec, request)
    sigmas = solver.sigmas(spec.schedule, request.steps or 1)
    return drive(solver.run(fresh(-1), sigmas, spec.schedule, fresh), guided)


def solver_of(spec: ModelSpec, request: ImageRequest) -> SolverSpec:
    """The solver of a request: the one asked for, else the checkpoint's."""
    return SOLVERS[request.solver or spec.schedule.solver]


def model_time(spec: ModelSpec, request: ImageRequest) -> Clock:
    """The time that the transformer reads.

    Consistency models read the noise level itself, models that scale time on their own exact thousandths; else the
    solver decides, and the official dialect wants whole thousandths from all.
    """
    dialect = spec.dialect
    if spec.schedule.kind == "scm":
        return Clock(scale=1.0)
    if dialect.integer_time and spec.transformer.time_scale != 1:
        return Clock()
    return solver_of(spec, request).clock(spec.schedule, request.steps or 1, dialect.integer_time)


def pag_blocks(config: TransformerConfig, request: ImageRequest, pag_folder: bool = False) -> tuple[int, ...]:
    """The blocks that perturbed attention guidance perturbs: in a folder made for it, those of diffusers' pipeline."""
    if request.pag_blocks is not None:
        return request.pag_blocks
    return DIFFUSERS_PAG_BLOCKS if pag_folder else PAG_BLOCKS.get(config.depth, (config.depth // 2,))


def check_blocks(spec: ModelSpec, request: ImageRequest) -> None:
    """Raises RequestError where perturbed attention is to perturb a block that the transformer does not have."""
    depth = spec.transformer.depth
    absent = [block for block in request.pag_blocks or () if block >= depth]
    if absent:
        raise RequestError(
            f"there is no block {absent[0]} to perturb: the transformer has blocks 0 to {depth - 1}."
        )


@torch.no_grad()
def decode(autoencoder: DCAE, latent: Tensor, request: ImageRequest) -> Tensor:
    """Stage three: latent [1, C, h, w] -> pixels [1, 3, height, width] float32 of the size asked for, about -1..1."""
    weight = autoencoder.decoder.entry.weight
    unscaled = (latent / autoencoder.config.scaling_factor).to(weight.device, weight.dtype)
    pixels = watched(autoencoder, lambda: decode_latent(autoencoder, unscaled), "decode").float()
    return fit(pixels, request.width or pixels.shape[-1], request.height or pixels.shape[-2])


def decode_latent(autoencoder: DCAE, latent: Tensor) -> Tensor:
    """Unscaled [1, C, h, w] -> [1, 3, H, W], in tiles when large or when a GPU has no memory for the whole."""
    height, width = (side * autoencoder.config.ratio for side in latent.shape[-2:])
    total = total_bytes(latent.device)
    if needs_tiles(autoencoder.config, width, height, latent.dtype, total, latent.device.type):
        return decode_tiled(autoencoder, latent)
    try:
        return autoencoder.decode(latent)
    except torch.OutOfMemoryError:
        torch.cuda.empty_cache()
    return decode_tiled(autoencoder, latent, tile=512, stride=384)


def fit(pixels: Tensor, width: int, height: int) -> Tensor:
    """[B, 3, H, W] -> [B, 3, height, width]: scaled until both sides cover the size (bilinear), centre cropped.

    The scaled size is cut to whole pixels as in diffusers, but never below the size asked for: there a rounding
    error can lose a pixel, and then most of the picture.
    """
    have_height, have_width = pixels.shape[-2:]
    if (have_height, have_width) == (height, width):
        return pixels
    ratio = max(height / have_height, width / have_width)
    size = (max(int(have_height * ratio), height), max(int(have_width * ratio), width))
    pixels = F.interpolate(pixels, size=size, mode="bilinear", align_corners=False)
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    return pixels[..., top : top + height, left : left + width]


def to_image(pixels: Tensor) -> Image.Image:
    """[1, 3, H, W] in -1..1 -> an RGB picture, rounded to the nearest of 256 levels."""
    levels = ((pixels[0] * 0.5 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8)
    return Image.fromarray(levels.permute(1, 2, 0).contiguous().cpu().numpy())


def watched(module: nn.Module, run: Callable[[], Tensor], stage: str) -> Tensor:
    """What `run` returns; raises NumericsError, naming stage and layer, where that holds NaN or Inf."""
    result = run()
    if not bool(torch.isfinite(result).all()):
        check_finite(result, stage, find_nonfinite_layer(module, run))
    return result
