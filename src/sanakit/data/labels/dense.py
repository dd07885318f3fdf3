"""Annotators from models that `transformers` loads, depth and the joints of a body; and detectors of things.

The picture goes through the model's own processor. No code in a model's folder is executed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from PIL import Image, ImageDraw
from torch import Tensor

from sanakit.base.errors import ConfigError
from sanakit.base.precision import Precision
from sanakit.data.annotators import Annotate
from sanakit.data.labels.labellers import Detection
from sanakit.data.labels.vision import load_vision

_METRIC = ("depth_pro", "glpn", "zoedepth")
"""Models whose numbers are distances; those of the others grow with nearness."""

NEEDS_SCIPY = 'the pictures of a pose model are turned by scipy: run `pip install "sanakit[pose]"`'

_SURE = 0.3  # of a joint, to be drawn
_COLOURS = ((255, 60, 60), (255, 200, 0), (60, 220, 60), (0, 200, 255), (90, 90, 255), (255, 90, 220))


def model_annotator(folder: Path, precision: Precision) -> Annotate:
    """Return what a model makes of pictures, by its class: nearness (white) or joints (on black).

    Raises ConfigError if the folder holds no model for either, or a library is missing.
    """
    from transformers import AutoConfig

    try:
        config: Any = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # OSError, ValueError, KeyError of a damaged or unknown configuration
        raise ConfigError(
            f"the model in {folder} can't be loaded: {' '.join(str(error).split())[:300]}"
        ) from error
    name = str((config.architectures or [type(config).__name__])[0])
    if name.endswith("ForDepthEstimation"):
        return _depth(folder, precision)
    if name.endswith("ForPoseEstimation"):
        return _pose(folder, precision)
    raise ConfigError(
        f"{folder} is a {name}, which makes no control pictures: take a model for depth or pose"
    )


class ModelDetector:
    """A model of object detection; see `Detector`. Raises ConfigError if the folder holds no such model."""

    def __init__(self, folder: Path, precision: Precision) -> None:
        from transformers import AutoModelForObjectDetection

        self.model, self.processor = load_vision(AutoModelForObjectDetection, folder, precision, images=True)
        if not hasattr(self.processor, "post_process_object_detection"):
            raise ConfigError(f"the model in {folder} gives no boxes: take one for object detection")
        self.classes: dict[int, str] = {int(k): str(v) for k, v in self.model.config.id2label.items()}
        self.names = frozenset(self.classes.values())
        self.device = precision.device

    @torch.inference_mode()
    def __call__(self, pictures: Sequence[Image.Image]) -> list[list[Detection]]:
        """As `Detector`."""
        seen = self.processor(images=list(pictures), return_tensors="pt").to(self.device, self.model.dtype)
        sizes = [(picture.height, picture.width) for picture in pictures]
        found = self.processor.post_process_object_detection(
            self.model(**seen), threshold=0.0, target_sizes=sizes
        )
        return [self._detections(one) for one in found]

    def _detections(self, found: Mapping[str, Tensor]) -> list[Detection]:
        rows = zip(found["labels"].tolist(), found["boxes"].tolist(), found["scores"].tolist(), strict=True)
        return [
            Detection(name=self.classes.get(int(label), ""), box=tuple(box), score=float(score))
            for label, box, score in rows
        ]


def _depth(folder: Path, precision: Precision) -> Annotate:
    from transformers import AutoModelForDepthEstimation

    model, processor = load_vision(AutoModelForDepthEstimation, folder, precision, images=True)
    metric = (
        model.config.model_type in _METRIC or getattr(model.config, "depth_estimation_type", "") == "metric"
    )

    @torch.inference_mode()
    def annotate(picture: Image.Image) -> Image.Image:
        seen = processor(images=picture, return_tensors="pt").to(precision.device, model.dtype)
        depth = model(**seen).predicted_depth.float()[None]
        size = (picture.height, picture.width)
        depth = F.interpolate(depth, size, mode="bicubic", align_corners=False)[0, 0]
        return _levels(1 / depth.clamp(min=1e-3) if metric else depth)

    return annotate


def _levels(nearness: Tensor) -> Image.Image:
    """[H, W], the farthest black and the nearest white."""
    low, high = nearness.min(), nearness.max()
    grey = ((nearness - low) / (high - low).clamp(min=1e-6) * 255).round().to(torch.uint8)
    return Image.fromarray(grey.cpu().numpy()).convert("RGB")


def _pose(folder: Path, precision: Precision) -> Annotate:
    """Make an annotator for poses. The whole picture is one body's box: models of this kind want a box for each."""
    if find_spec("scipy") is None:
        raise ConfigError(NEEDS_SCIPY)
    from transformers import AutoModelForPoseEstimation

    model, processor = load_vision(AutoModelForPoseEstimation, folder, precision, images=True)
    bones = [tuple(pair) for pair in getattr(model.config, "edges", None) or ()]

    @torch.inference_mode()
    def annotate(picture: Image.Image) -> Image.Image:
        boxes = [[[0.0, 0.0, float(picture.width), float(picture.height)]]]
        seen = processor(images=picture, boxes=boxes, return_tensors="pt").to(precision.device, model.dtype)
        found = processor.post_process_pose_estimation(model(**seen), boxes=boxes)[0][0]
        return _skeleton(picture.size, found["keypoints"].tolist(), found["scores"].tolist(), bones)

    return annotate


def _skeleton(
    size: tuple[int, int],
    joints: Sequence[Sequence[float]],
    scores: Sequence[float],
    bones: Sequence[tuple[int, ...]],
) -> Image.Image:
    """Joints that are sure as dots, and bones between two of them as lines."""
    drawn = Image.new("RGB", size)
    brush, thick = ImageDraw.Draw(drawn), max(1, min(size) // 80)
    places = {k: (float(at[0]), float(at[1])) for k, at in enumerate(joints) if scores[k] > _SURE}
    for number, bone in enumerate(bones):
        if all(end in places for end in bone):
            brush.line([places[end] for end in bone], fill=_COLOURS[number % len(_COLOURS)], width=thick)
    for x, y in places.values():
        brush.ellipse((x - thick, y - thick, x + thick, y + thick), fill="white")
    return drawn
