"""open_clip and ray: a clear sentence where they are missing, a stand-in or the library itself where not."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image

from sanakit.base.errors import ConfigError
from sanakit.data.labels.labellers import lacks_caption
from sanakit.data.labels.models import LabelModel, load_labeller, load_scorer
from sanakit.data.labels.ray import label_with_ray
from sanakit.data.labels.run import label_here
from sanakit.data.source import open_set
from sanakit.toybox import caption, sample_scene
from tests.data.labels.renders import rendered
from tests.data.pictures import encoded, png, write_files

PICTURES = [Image.new("RGB", (40, 20), colour) for colour in ("red", "blue")]


def has(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ValueError:
        return False


def scorer_of(name: str, announce: Any = lambda text: None) -> Any:
    return load_scorer(LabelModel(task="score", name=name, device="cpu", dtype="fp32"), announce)


def test_without_open_clip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(ConfigError, match=r'needs open_clip: pip install "sanakit\[clip\]"'):
        scorer_of("open_clip:ViT-B-32/openai")


class StandIn(torch.nn.Module):
    """What this package uses of an open_clip model: pictures by their mean colour, texts by their length."""

    def encode_image(self, pixels: torch.Tensor, normalize: bool) -> torch.Tensor:
        assert normalize
        return torch.nn.functional.normalize(pixels.mean((2, 3)), dim=-1)

    def encode_text(self, tokens: torch.Tensor, normalize: bool) -> torch.Tensor:
        assert normalize
        return torch.nn.functional.one_hot(tokens, 3).float()


def stand_in(log: list[Any]) -> SimpleNamespace:
    def create(name: str, pretrained: str | None, **options: Any) -> tuple[Any, None, Any]:
        log.append((name, pretrained, options))
        if name == "none":
            raise RuntimeError("Model config for none not found.")
        return (
            StandIn(),
            None,
            lambda image: torch.tensor(image.getpixel((0, 0))).float()[:, None, None] / 255,
        )

    def tokenizer(name: str) -> Any:
        return lambda texts: torch.tensor([len(text) for text in texts])

    return SimpleNamespace(create_model_and_transforms=create, get_tokenizer=tokenizer)


def test_open_clip_scores_are_its_cosines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log: list[Any] = []
    told: list[str] = []
    monkeypatch.setitem(sys.modules, "open_clip", stand_in(log))
    scorer = scorer_of("open_clip:ViT-B-32/laion2b", told.append)
    assert scorer(PICTURES, [["", "bb"], ["bb"]]) == [[100.0, 0.0], [100.0]]
    assert scorer(PICTURES, [[], []]) == [[], []]
    assert log[0][:2] == ("ViT-B-32", "laion2b") and "downloads the weights laion2b of ViT-B-32" in told[0]
    (tmp_path / "w.pt").write_bytes(b"")
    scorer_of(f"open_clip:ViT-B-32/{tmp_path / 'w.pt'}", told.append)
    scorer_of(f"open_clip:{tmp_path}", told.append)
    assert len(told) == 1 and log[2][:2] == (f"local-dir:{tmp_path}", None)
    with pytest.raises(ConfigError, match="can't load none/x: Model config for none not found"):
        scorer_of("open_clip:none/x")
    with pytest.raises(ConfigError, match="names no weights"):
        scorer_of("open_clip:ViT-B-32")


@pytest.mark.skipif(not (has("open_clip") and has("torchvision")), reason="needs open_clip")
@pytest.mark.filterwarnings("ignore")
def test_open_clip_itself(tmp_path: Path) -> None:
    import open_clip

    shape = {"width": 16, "layers": 1}
    vision = {**shape, "image_size": 32, "patch_size": 16, "head_width": 8}
    text = {**shape, "context_length": 77, "vocab_size": 49408, "heads": 2}
    config = {"embed_dim": 8, "vision_cfg": vision, "text_cfg": text}
    whole = {"model_cfg": config, "preprocess_cfg": {}}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(whole))
    (tmp_path / "tiny.json").write_text(json.dumps(config))
    open_clip.add_model_config(tmp_path / "tiny.json")
    model = open_clip.create_model("tiny")
    torch.save(model.state_dict(), tmp_path / "open_clip_pytorch_model.bin")
    scores = scorer_of(f"open_clip:{tmp_path}")(PICTURES, [["a cat", "a dog"], ["a cat"]])
    assert [len(row) for row in scores] == [2, 1] and all(abs(score) <= 100 for score in scores[0])


def test_without_ray(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    model = LabelModel(task="caption", name="toybox")
    with pytest.raises(ConfigError, match=r'needs ray: pip install "sanakit\[ray\]"'):
        next(label_with_ray(tmp_path, [0], model, 1))


@pytest.mark.skipif(not has("ray"), reason="needs ray")
@pytest.mark.filterwarnings("ignore")
def test_a_ray_job_says_what_one_process_says(tmp_path: Path) -> None:
    import random

    import ray

    scenes = [sample_scene(seed) for seed in range(3)]
    files: dict[str, bytes | str] = {"broken.png": png()[:200]}
    for number, (scene, image) in enumerate(zip(scenes, rendered(scenes, 64), strict=True)):
        files |= {f"{number}.png": encoded(image), f"{number}.txt": caption(scene, random.Random(0))}
    pictures = open_set(write_files(tmp_path, files))
    ray.init(num_cpus=2, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
    try:
        for task in ("caption", "score"):
            model = LabelModel(task=task, name="toybox")  # type: ignore[arg-type]
            indices = [k for k, item in enumerate(pictures) if task == "caption" or item.captions]
            here = {one.key: one for one in label_here(pictures, indices, load_labeller(model), 2)}
            there = {one.key: one for one in label_with_ray(tmp_path, indices, model, 2)}
            assert here == there and all(lacks_caption(pictures[k], "toybox") for k in indices)
    finally:
        ray.shutdown()
