"""Models that `transformers` loads, at toy size: what they are asked, what they say, and what can't be loaded."""

from __future__ import annotations

from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path

import pytest
import torch
from PIL import Image

from sanakit.base.errors import ConfigError, ModelNotFoundError
from sanakit.base.precision import decide
from sanakit.data.labels.models import SCORERS, LabelModel, load_captioner, load_scorer
from sanakit.data.labels.vision import INSTRUCTION, QUESTION, question_scorer, vision_captioner, vision_scorer
from tests.data.labels import tiny_models

CPU = decide("cpu", "fp32")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    for name in ("clip", "siglip", "llava", "blip"):
        getattr(tiny_models, f"write_{name}")(folder / name)
    return folder


@pytest.fixture(scope="module")
def pictures() -> list[Image.Image]:
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 256, (3, 40, 56, 3), generator=generator, dtype=torch.uint8)
    return [Image.fromarray(one.numpy()) for one in noise] + [Image.new("RGB", (33, 90), "red")]


@pytest.mark.parametrize("name", ["clip", "siglip"])
def test_scores_are_cosines_of_the_model(models: Path, pictures: list[Image.Image], name: str) -> None:
    from transformers import AutoModel, AutoProcessor

    captions = [["a red sphere", "three cones on sand"], [], ["a red sphere"], ["a cone " * 30]]
    found = vision_scorer(models / name, CPU)(pictures, captions)
    assert [len(row) for row in found] == [2, 0, 1, 1]
    model, processor = AutoModel.from_pretrained(models / name), AutoProcessor.from_pretrained(models / name)
    padding = {"padding": "max_length", "max_length": 12} if name == "siglip" else {}
    batch = processor(text=["a red sphere"], images=[pictures[2]], return_tensors="pt", **padding)
    with torch.no_grad():
        output = model(**batch)
    cosine = torch.nn.functional.cosine_similarity(output.image_embeds, output.text_embeds)
    assert found[2] == pytest.approx([100 * cosine.item()], abs=1e-3)
    assert all(-100.001 <= score <= 100.001 for row in found for score in row)
    assert vision_scorer(models / name, CPU)(pictures[:1], [[]]) == [[]]


def test_a_captioner_answers_for_each_picture_alone(models: Path, pictures: list[Image.Image]) -> None:
    captioner = vision_captioner(models / "llava", CPU, max_tokens=6)
    together = captioner(pictures)
    assert together == [captioner([picture])[0] for picture in pictures]
    assert len(set(together)) > 1
    assert not any(INSTRUCTION[:8].lower() in text.lower() for text in together)


def test_the_instruction_is_what_the_model_is_asked(models: Path, pictures: list[Image.Image]) -> None:
    said = [
        vision_captioner(models / "llava", CPU, instruction=asked, max_tokens=8)(pictures)
        for asked in (None, INSTRUCTION, "count")
    ]
    assert said[0] == said[1] != said[2]


def test_a_captioner_without_a_chat(models: Path, pictures: list[Image.Image]) -> None:
    captioner = vision_captioner(models / "blip", CPU, max_tokens=5)
    assert captioner(pictures) == [captioner([picture])[0] for picture in pictures]


def test_a_model_that_is_asked_gives_its_share_of_yes(models: Path, pictures: list[Image.Image]) -> None:
    from transformers import AutoModelForImageTextToText, AutoProcessor

    found = load_scorer(LabelModel(task="score", name=f"vqa:{models / 'llava'}", device="cpu", dtype="fp32"))(
        pictures, [["a red sphere", "a cone"], [], ["a cone"], ["a red sphere"]]
    )
    assert [len(row) for row in found] == [2, 0, 1, 1] and all(
        0 <= score <= 100 for row in found for score in row
    )
    assert len({score for row in found for score in row}) == 4
    model = AutoModelForImageTextToText.from_pretrained(models / "llava")
    processor = AutoProcessor.from_pretrained(models / "llava")
    content = [{"type": "image"}, {"type": "text", "text": QUESTION.format(text="a cone")}]
    asked = processor.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
    )
    with torch.no_grad():
        batch = processor(images=pictures[2], text=asked, return_tensors="pt")
        shares = model(**batch).logits[0, -1].softmax(0)
    yes, no = (float(shares[processor.tokenizer.convert_tokens_to_ids(token)]) for token in "yn")
    assert found[2] == pytest.approx([100 * yes / (yes + no)], abs=1e-3)
    with pytest.raises(ConfigError, match="can't be loaded"):
        question_scorer(models / "clip", CPU)
    with pytest.raises(ConfigError, match="only scores"):
        load_captioner(LabelModel(task="caption", name="vqa:someone/vlm"))


def test_a_package_may_offer_a_scorer(monkeypatch: pytest.MonkeyPatch) -> None:
    found = EntryPoint("dark", "tests.data.labels.test_vision:darkness", SCORERS)
    broken = EntryPoint("broken", "tests.data.labels.not_there:score", SCORERS)
    points = EntryPoints([found, broken])
    monkeypatch.setattr("sanakit.data.labels.models.entry_points", lambda **wanted: points.select(**wanted))
    scorer = load_scorer(LabelModel(task="score", name="dark"))
    assert scorer([Image.new("RGB", (4, 4), "black")], [["night", "day"]]) == [[100.0, 100.0]]
    with pytest.raises(ConfigError, match="the scorer broken can't be loaded"):
        load_scorer(LabelModel(task="score", name="broken"))
    with pytest.raises(ConfigError, match="dark only scores"):
        load_captioner(LabelModel(task="caption", name="dark"))


def darkness(pictures, captions):
    """A scorer as a package would offer it."""
    return [
        [100.0 - 100 / 255 * sum(picture.convert("L").getextrema()) / 2 for _ in row]
        for picture, row in zip(pictures, captions, strict=True)
    ]


def test_what_is_no_such_model(models: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="can't be loaded"):
        vision_captioner(models / "clip", CPU)
    with pytest.raises(ConfigError, match="does not compare pictures with texts"):
        vision_scorer(models / "llava", CPU)
    with pytest.raises(ModelNotFoundError, match="holds no config.json"):
        load_scorer(LabelModel(task="score", name=str(tmp_path)))
    with pytest.raises(ModelNotFoundError, match="isn't a folder or a hub id"):
        load_scorer(LabelModel(task="score", name="clip"))
    with pytest.raises(ModelNotFoundError, match="hub is offline"):
        load_captioner(LabelModel(task="caption", name="someone/vlm"))
    with pytest.raises(ConfigError, match="only scores"):
        load_captioner(LabelModel(task="caption", name="open_clip:ViT-B-32/openai"))
    with pytest.raises(ConfigError, match="1 token or more"):
        load_captioner(LabelModel(task="caption", name="toybox", max_tokens=0))
