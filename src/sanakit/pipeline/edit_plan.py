"""What a request to change a picture and a model decide together: sizes, the steps that are made, what may change."""

from __future__ import annotations

import math
from dataclasses import dataclass

from PIL import Image
from torch import Tensor

from sanakit.base.errors import RequestError
from sanakit.base.sizes import SIZE_STEP, Size, nearest_side
from sanakit.pipeline.canvas import Canvas, free_levels, place
from sanakit.pipeline.editing import HOWS, mask_levels
from sanakit.pipeline.inputs import MOST_PIXELS
from sanakit.pipeline.request import ImageRequest

USUAL_STRENGTH = 0.5
"""Of an edit without a mask: half of the steps keep the layout and change the rest."""


USUAL_WORDS_STRENGTH = 0.7
"""Of an edit by words alone; one that names its angles makes all of them."""

USUAL_SOURCE_GUIDANCE = {"flow-edit": 1.5, "inversion": 1.0}
"""By how it is done. An inversion under guidance drifts (Mokady et al. 2022, arXiv:2211.09794, section 3.1)."""


@dataclass(frozen=True, kw_only=True)
class WordsPlan:
    """An edit by two texts: by FlowEdit, or by inversion.

    prompt: what the source shows. guidance: its scale. averages: noises of a step of FlowEdit.
    """

    prompt: str
    guidance: float
    averages: int
    inverts: bool = False


@dataclass(frozen=True, kw_only=True, eq=False)
class EditPlan:
    """How a picture is changed.

    source      RGB or RGBA
    mask        grey levels of the source's size, 255 for what is drawn anew; None for none
    canvas      where the source lies in what is drawn
    free_below  noise levels [1, 1, h, w] below which a latent position may change; None if all of it may from the first
    strength    the part of the steps that is made; the noise level of all of them if a consistency model follows words
    words       for an edit by words alone; None for the others
    """

    source: Image.Image
    mask: Image.Image | None
    canvas: Canvas
    free_below: Tensor | None
    strength: float
    words: WordsPlan | None = None

    @property
    def keeps(self) -> bool:
        """Whether some pixels of the source come back to the bit."""
        return self.free_below is not None


def canvas_size(request: ImageRequest) -> Size:
    """Return the size of the result: the source and its margins. Raises RequestError if it is too large."""
    assert request.source is not None
    left, top, right, bottom = request.outpaint or (0, 0, 0, 0)
    width, height = request.source.image.size
    size = Size(width + left + right, height + top + bottom)
    if size.width * size.height > MOST_PIXELS:
        raise RequestError(
            f"the picture with its margins has {size} pixels, more than {MOST_PIXELS:,} in all"
        )
    return size


def drawn_side(canvas: Size, side: int, step: int) -> Size:
    """Return the size to draw a canvas at by default: its shape, about as many pixels as a square of `side`."""
    scale, step = side / math.sqrt(canvas.width * canvas.height), max(step, SIZE_STEP)
    return Size(nearest_side(canvas.width * scale, step), nearest_side(canvas.height * scale, step))


def plan_edit(request: ImageRequest, drawn: Size, ratio: int) -> EditPlan | None:
    """Return how the source of a request is changed, None if it has none. ratio: pixels of a latent position."""
    if request.source is None:
        return None
    source = request.source.image
    mask = None if request.mask is None else mask_levels(request.mask)
    left, top, right, bottom = request.outpaint or (0, 0, 0, 0)
    canvas = place(Size(*source.size), (left, top, right, bottom), drawn)
    keeps = mask is not None or request.outpaint is not None
    words = _words(request)
    usual = 1.0 if keeps else USUAL_STRENGTH
    if words is not None:
        usual = USUAL_WORDS_STRENGTH if request.angles is None else 1.0
    return EditPlan(
        source=source,
        mask=mask,
        canvas=canvas,
        free_below=free_levels(canvas, mask, ratio) if keeps else None,
        strength=usual if request.strength is None else request.strength,
        words=words,
    )


def _words(request: ImageRequest) -> WordsPlan | None:
    if request.source_prompt is None:
        return None
    how, guidance = request.how or HOWS[0], request.source_guidance
    return WordsPlan(
        prompt=request.source_prompt,
        guidance=USUAL_SOURCE_GUIDANCE[how] if guidance is None else guidance,
        averages=request.averages or 1,
        inverts=how == "inversion",
    )


def edit_notes(edit: EditPlan) -> list[str]:
    """Return a sentence if the result is drawn smaller than it is."""
    canvas, drawn = edit.canvas.size, edit.canvas.drawn
    if drawn.width >= canvas.width or drawn.height >= canvas.height:
        return []
    return [f"the picture of {canvas} is drawn at {drawn} and scaled up; a larger --size keeps more detail."]
