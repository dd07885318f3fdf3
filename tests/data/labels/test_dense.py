"""Control pictures by models of transformers: depth near to far whatever the model counts, joints with their bones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from sanakit.base.errors import ConfigError
from sanakit.base.precision import decide
from sanakit.data.labels import dense
from sanakit.data.labels.dense import model_annotator
from tests.data.labels.tiny_models import write_clip

CPU = decide("cpu", "fp32")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GLPN, which measures distance, a DPT, which measures nearness, and a ViTPose of five joints."""
    import transformers as t

    folder = tmp_path_factory.mktemp("dense")
    torch.manual_seed(0)
    glpn = t.GLPNConfig(
        num_encoder_blocks=2, depths=[1, 1], sr_ratios=[4, 2], hidden_sizes=[8, 8], patch_sizes=[7, 3], strides=[4, 2],
        num_attention_heads=[1, 1], mlp_ratios=[2, 2], decoder_hidden_size=8, head_in_index=-1,
    )  # fmt: skip
    dpt = t.DPTConfig(
        hidden_size=16, num_hidden_layers=4, num_attention_heads=2, intermediate_size=16, image_size=32, patch_size=16,
        backbone_out_indices=[0, 1, 2, 3], neck_hidden_sizes=[8] * 4, fusion_hidden_size=8,
        reassemble_factors=[4, 2, 1, 0.5], is_hybrid=False,
    )  # fmt: skip
    body = t.VitPoseBackboneConfig(
        image_size=[32, 24], patch_size=[8, 8], hidden_size=16, num_hidden_layers=2, num_attention_heads=2, mlp_ratio=2,
        part_features=8, num_experts=1,
    )  # fmt: skip
    pose = t.VitPoseConfig(backbone_config=body, num_labels=5, edges=[[0, 1], [1, 2]])
    side = {"height": 32, "width": 32}
    for name, model, processor in (
        ("glpn", t.GLPNForDepthEstimation(glpn), t.GLPNImageProcessor()),
        ("dpt", t.DPTForDepthEstimation(dpt), t.DPTImageProcessor(size=side)),
        ("pose", t.VitPoseForPoseEstimation(pose), t.VitPoseImageProcessor(size={"height": 32, "width": 24})),
    ):
        _shake(model)
        model.save_pretrained(folder / name)
        processor.save_pretrained(folder / name)
    write_clip(folder / "clip")
    return folder


def _shake(model: Any) -> None:
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.rand_like(weight) * 0.2)


@pytest.fixture(scope="module")
def picture() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8))


@pytest.mark.parametrize("name", ["glpn", "dpt"])
def test_the_nearest_is_white_and_the_farthest_black(models: Path, picture: Image.Image, name: str) -> None:
    import transformers as t

    made = model_annotator(models / name, CPU)(picture)
    levels = np.asarray(made)[..., 0].astype(float)
    assert made.size == picture.size and (levels.min(), levels.max()) == (0, 255)
    model: Any = t.AutoModelForDepthEstimation.from_pretrained(models / name)
    seen = t.AutoImageProcessor.from_pretrained(models / name)(images=picture, return_tensors="pt")
    with torch.no_grad():
        depth = model.eval()(**seen).predicted_depth[None]
    depth = torch.nn.functional.interpolate(depth, (48, 64), mode="bicubic", align_corners=False)[
        0, 0
    ].numpy()
    slope = np.corrcoef(levels.ravel(), depth.ravel())[0, 1]
    assert slope < -0.7 if name == "glpn" else slope > 0.99


def test_joints_are_dots_and_bones_lines_on_black() -> None:
    joints, scores = [[8.0, 8.0], [40.0, 8.0], [40.0, 40.0]], [0.9, 0.8, 0.1]
    drawn = np.asarray(dense._skeleton((64, 48), joints, scores, [(0, 1), (1, 2)]))
    assert tuple(drawn[8, 8]) == (255, 255, 255) and drawn[8, 24].any() and not drawn[24, 40].any()


def test_a_pose_model_says_which_library_it_needs(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dense, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"turned by scipy: run `pip install \"sanakit\[pose\]\"`"):
        model_annotator(models / "pose", CPU)


def test_what_makes_no_control_pictures_is_told(models: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is a CLIPModel, which makes no control pictures"):
        model_annotator(models / "clip", CPU)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ConfigError, match="can't be loaded"):
        model_annotator(tmp_path, CPU)
