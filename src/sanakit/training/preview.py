"""Previews of a run: the averaged weights draw the same prompts with the same seed, through the usual pipeline.

A preview is a sheet of pictures, each with its prompt below it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo
from torch import nn

from sanakit.base.files import atomic_write, ensure_writable_folder
from sanakit.base.precision import Precision
from sanakit.pipeline import ImageRequest, Model, make_grid
from sanakit.pipeline.origin import Origin
from sanakit.text import TextEncoder, build_gemma, load_tokenizer
from sanakit.training.config import TrainConfig
from sanakit.training.tasks.joint_text import text_weights, transformer_weights
from sanakit.training.trainer import Hook, Trainer
from sanakit.transformer import SanaTransformer
from sanakit.weights import ModelSpec, assign

PROMPTS = (
    "a large red metal sphere left of a small blue rubber cube on grass at sunset",
    "two yellow cones on sand",
)
_FORWARD = 3  # a training step is about three forward passes

_GAP = 4
_MARGIN = 3
_NARROWEST = 160  # pixels of a column: below it a line holds a word or two
_LETTERS = 11  # pixels; they stay as they are on large pictures, whose columns hold more of them
_MOST_LINES = 6

_Font = ImageFont.ImageFont | ImageFont.FreeTypeFont
_WIDE = ("DejaVuSans.ttf", "NotoSans-Regular.ttf", "Arial Unicode.ttf", "arial.ttf")
"""Fonts of systems, used for texts with letters that Pillow's own font lacks: it has ASCII alone."""


Drawer = Callable[[Trainer, ModelSpec], AbstractContextManager[Model | None]]
"""(run, its model as described) -> the model that draws, with averaged weights; None on processes that do not draw."""


def preview(
    config: TrainConfig, described: Callable[[int], ModelSpec], drawer: Drawer, steps: Sequence[int]
) -> Hook:
    """Draw `config.preview` to RUN/previews/step-N.png. Every process calls it, the first one draws.

    The sheet of step 0 shows the weights that the run begins with. described: the model under training in a phase.
    steps: of the solver, a column each if there are several.
    """

    def draw(trainer: Trainer) -> Mapping[str, float]:
        phase, _ = config.phase_at(max(0, trainer.step - 1))  # of the last step
        prompts = config.preview.prompts or PROMPTS
        with drawer(trainer, replace(described(phase), bins=False)) as model:
            if model is not None:
                pictures = draw_previews(config, model, steps)
                texts = [_told(prompt, count, steps) for prompt in prompts for count in steps]
                columns = len(steps) if len(steps) > 1 else None
                save_sheet(path(trainer), captioned_sheet(pictures, texts, columns), prompts)
        return {}

    def path(trainer: Trainer) -> Path:
        return config.folder / "previews" / f"step-{trainer.step:08d}.png"

    wanted = config.preview
    branches = 2 if wanted.guidance > 1 and described(0).kind == "sana" else 1
    passes = len(wanted.prompts or PROMPTS) * sum(steps) * branches
    return Hook(
        name="preview", every=wanted.every, run=draw, required=False, at_start=True, picture=path,
        expected=passes / (_FORWARD * config.batch),
    )  # fmt: skip


def averaged(config: TrainConfig, precision: Precision, network: nn.Module) -> Drawer:
    """Draw with copies of the averaged weights. network: the part of what is trained that draws.

    Every process gathers the weights.
    """

    @contextmanager
    def drawer(trainer: Trainer, spec: ModelSpec) -> Iterator[Model | None]:
        weights = trainer.ema.gathered()
        if not trainer.world.leads:
            yield None
            return
        with torch.device("meta"):
            drawn = SanaTransformer(spec.transformer)
        own, text = transformer_weights(network, weights), text_weights(network, weights)
        assign(drawn, own.items(), dtype=precision.dtype, device=precision.device)
        model = drawing_model(config, spec, precision, drawn.eval().requires_grad_(False))
        if text is not None:
            model.parts.replace("text", _text_encoder(spec, precision, text))
        yield model

    return drawer


def drawing_model(
    config: TrainConfig, spec: ModelSpec, precision: Precision, network: SanaTransformer
) -> Model:
    """Return the model of a run as it draws previews: its transformer is `network`."""
    model = Model(spec, precision, origin=Origin(name=str(config.folder)), frugal=False, fast="off")
    model.parts.replace("transformer", network)
    return model


def draw_previews(config: TrainConfig, model: Model, steps: Sequence[int]) -> list[Image.Image]:
    """Return every prompt with each number of solver steps, at the size that the network is trained at."""
    wanted = config.preview
    requests = [
        ImageRequest(prompt=prompt, steps=count, guidance=wanted.guidance, seed=wanted.seed)
        for prompt in wanted.prompts or PROMPTS
        for count in steps
    ]
    return [model.images(request)[0] for request in requests]


def _told(prompt: str, count: int, steps: Sequence[int]) -> str:
    """Return the text below a picture."""
    return prompt if len(steps) == 1 else f"{count} step{'s' if count > 1 else ''}: {prompt}"


def _text_encoder(spec: ModelSpec, precision: Precision, weights: Mapping[str, torch.Tensor]) -> TextEncoder:
    model = build_gemma(spec.text_config, "meta")
    assign(model, weights.items(), dtype=precision.dtype, device=precision.device)
    return TextEncoder(model, load_tokenizer(spec.tokenizer_folder))


def save_sheet(path: Path, sheet: Image.Image, prompts: Sequence[str] = ()) -> None:
    """Write a PNG with the prompts, one a line, in its text chunk `prompts`; whole or not at all."""
    ensure_writable_folder(path.parent)
    texts = PngInfo()
    texts.add_itxt("prompts", "\n".join(prompts))
    atomic_write(path, lambda draft: sheet.save(draft, format="PNG", pnginfo=texts))


def captioned_sheet(
    pictures: Sequence[Image.Image], texts: Sequence[str], columns: int | None = None
) -> Image.Image:
    """Pictures of one size in a grid, the text of each below it; long texts end in an ellipsis.

    The pictures' own pixels are not scaled; small ones stand in the middle of wider columns. columns: None for about
    as many as rows.
    """
    font = _font("".join(texts))
    width = max(pictures[0].width, _NARROWEST)
    lines = [list(_wrapped(text, font, width - 2 * _MARGIN)) for text in texts]
    tall = max(len(each) for each in lines)
    cells = [_cell(picture, each, tall, width, font) for picture, each in zip(pictures, lines, strict=True)]
    return make_grid(cells, columns=columns, gap=_GAP)


def _font(text: str) -> _Font:
    for name in () if text.isascii() else _WIDE:
        try:
            return ImageFont.truetype(name, _LETTERS)
        except OSError:
            continue
    return ImageFont.load_default(_LETTERS)


def _cell(picture: Image.Image, lines: Sequence[str], tall: int, width: int, font: _Font) -> Image.Image:
    """One picture over its lines, with room for as many as the longest text of the sheet has."""
    step = _LETTERS + _MARGIN
    cell = Image.new("RGB", (width, picture.height + tall * step + 2 * _MARGIN), "white")
    cell.paste(picture, ((width - picture.width) // 2, 0))
    draw = ImageDraw.Draw(cell)
    for number, line in enumerate(lines):
        draw.text((_MARGIN, picture.height + _MARGIN + number * step), line, fill="black", font=font)
    return cell


def _wrapped(text: str, font: _Font, width: int) -> Iterator[str]:
    """Yield the lines of a text, broken between words and inside a word that is too wide alone."""
    rest = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    for number in range(_MOST_LINES):
        if not rest:
            return
        size = _fitting(rest, font, width)
        if size < len(rest) and number == _MOST_LINES - 1:
            yield f"{rest[: max(1, size - 3)]}..."
            return
        cut = rest.rfind(" ", 0, size + 1) if size < len(rest) else size
        cut = cut if cut > 0 else size
        yield rest[:cut]
        rest = rest[cut:].lstrip()


def _fitting(text: str, font: _Font, width: int) -> int:
    """Return how many of the first letters fit, at least one."""
    low, high = 1, len(text[: 2 * width])
    while low < high:
        middle = (low + high + 1) // 2
        fits = font.getlength(text[:middle]) <= width
        low, high = (middle, high) if fits else (low, middle - 1)
    return low
