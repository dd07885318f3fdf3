"""PNG files carry their request, are never half written, and never overwrite one another."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image, PngImagePlugin

from sanakit.base.errors import OutputError, PictureError
from sanakit.pipeline import png
from sanakit.pipeline.png import Record, free_name, make_grid, read_picture, slug, write_picture
from sanakit.pipeline.request import ImageRequest

REQUEST = ImageRequest(
    prompt="une sphère “rouge”, 赤い球", steps=4, guidance=2.0, seed=3, width=64, height=32, solver="dpm2"
)
RECORD = Record(request=REQUEST, made={"model": "toybox", "version": "0.1.0"})


def _image(colour: str = "red") -> Image.Image:
    return Image.new("RGB", (64, 32), colour)


def test_record_and_pixels_come_back(tmp_path: Path):
    path = write_picture(tmp_path / "a.png", _image(), RECORD)
    assert read_picture(path) == RECORD
    with Image.open(path) as image:
        assert image.tobytes() == _image().tobytes()
        assert image.text["parameters"].startswith("une sphère “rouge”, 赤い球\nSteps: 4")
        assert image.text["parameters"].endswith("Model: toybox, Version: 0.1.0")


def test_every_option_is_in_both_chunks_as_ever(tmp_path: Path):
    """Byte for byte: pictures of any version of sanakit are read by any other."""
    request = ImageRequest(
        prompt="a cube", negative="fog, mist", steps=4, guidance=2.0, seed=3, width=64, height=32, count=2,
        solver="scm", chi=False, cfg_interval=(0.1, 0.9), pag=1.5, pag_blocks=(3, 4), truncate=True, bins=False,
    )  # fmt: skip
    made = {"model": "toy, box", "weights": "ab12", "version": "0.1.0"}
    path = write_picture(tmp_path / "a.png", _image(), Record(request=request, made=made))
    with Image.open(path) as image:
        texts = dict(image.text)
    assert texts["parameters"] == (
        "a cube\nNegative prompt: fog, mist\n"
        "Steps: 4, Sampler: scm, CFG scale: 2.0, Seed: 3, Size: 64x32, CHI: off, CFG interval: 0.1 0.9, "
        'PAG scale: 1.5, PAG blocks: 3 4, Truncate: on, Bins: off, Model: "toy, box", Version: 0.1.0'
    )
    assert texts["sanakit"] == (
        '{"format": 1, "request": {"prompt": "a cube", "negative": "fog, mist", "steps": 4, "guidance": 2.0, '
        '"seed": 3, "width": 64, "height": 32, "count": 2, "solver": "scm", "chi": false, "cfg_interval": [0.1, 0.9], '
        '"pag": 1.5, "pag_blocks": [3, 4], "truncate": true, "bins": false}, "grid": false, '
        '"made": {"model": "toy, box", "weights": "ab12", "version": "0.1.0"}}'
    )
    assert read_picture(path).request == request


def test_an_option_of_a_later_version_is_written_only_if_it_was_given(tmp_path: Path):
    given = RECORD.request.replace(steps=2, angles=(1.5708, 1.3))
    for request in (RECORD.request, given):
        with Image.open(write_picture(tmp_path / "a.png", _image(), Record(request=request))) as image:
            texts = dict(image.text)
        assert ("Angles: 1.5708 1.3" in texts["parameters"]) is (request is given)
        assert (
            ('"angles": [1.5708, 1.3]' in texts["sanakit"])
            is ("angles" in texts["sanakit"])
            is (request is given)
        )
        assert read_picture(tmp_path / "a.png").request == request


def test_a_failing_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = write_picture(tmp_path / "a.png", _image(), RECORD)
    before = path.read_bytes()
    monkeypatch.setattr(png, "atomic_write", _refuse)
    with pytest.raises(OutputError):
        write_picture(path, _image("blue"), RECORD)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["a.png"]


def _refuse(path: Path, content: bytes) -> None:
    raise OutputError("the disk is full")


def test_names_are_slugs_and_never_taken_twice(tmp_path: Path):
    request = ImageRequest(prompt="A large RED sphere, left of: it/../..", seed=12)
    names = []
    for _ in range(3):
        path = free_name(tmp_path, request)
        path.touch()
        names.append(path.name)
    stem = "a-large-red-sphere-left-of-it-12"
    assert names == [f"{stem}.png", f"{stem}-2.png", f"{stem}-3.png"]


@pytest.mark.parametrize(
    ("prompt", "expected"), [("赤い", "picture"), ("Café!", "cafe"), ("x" * 300, "x" * 60)]
)
def test_slug(prompt: str, expected: str):
    assert slug(prompt) == expected


def _png_with(path: Path, **texts: str) -> Path:
    info = PngImagePlugin.PngInfo()
    for name, text in texts.items():
        info.add_text(name, text)
    _image().save(path, pnginfo=info)
    return path


BAD_CHUNKS = [
    "no json",
    "[]",
    "{}",
    '{"request": {}}',
    '{"format": 99, "request": {"prompt": "a"}}',
    '{"format": 1, "request": {"prompt": 1}}',
    '{"format": 1, "request": ' + "[" * 900 + "]" * 900 + "}",
    '{"format": 1, "request": {"prompt": "a", "steps": 1' + "0" * 400 + "}}",
    '{"format": 1, "request": {"prompt": "a"}, "made": [1]}',
    '{"format": 1, "request": {"prompt": "a"}, "others": 1}',
    '{"format": 1, "request": {"prompt": "a"}, "others": [{}]}',
]


@pytest.mark.parametrize("chunk", BAD_CHUNKS)
def test_bad_chunks_are_refused(tmp_path: Path, chunk: str):
    with pytest.raises(PictureError) as caught:
        read_picture(_png_with(tmp_path / "a.png", sanakit=chunk))
    assert "\n" not in str(caught.value)


def test_pictures_without_a_request_are_refused(tmp_path: Path):
    _image().save(tmp_path / "plain.png")
    _image().save(tmp_path / "photo.jpg")
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "empty.png").touch()
    whole = write_picture(tmp_path / "whole.png", _image(), RECORD).read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[:60])
    for name in ("plain.png", "photo.jpg", "text.png", "empty.png", "cut.png", "missing.png", "."):
        with pytest.raises(PictureError) as caught:
            read_picture(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_any_damage_is_a_typed_error_or_harmless(tmp_path: Path):
    whole = write_picture(tmp_path / "whole.png", _image(), RECORD).read_bytes()
    path = tmp_path / "damaged.png"
    for position in range(0, len(whole), 7):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 0x5A]) + whole[position + 1 :])
        try:
            read_picture(path)
        except PictureError as error:
            assert "\n" not in str(error)


def test_text_of_other_programs_is_understood(tmp_path: Path):
    text = "a cube\nNegative prompt: fog\nSteps: 20, Sampler: dpm2, CFG scale: 7, Seed: 1, Size: 512x512, Model: other"
    record = read_picture(_png_with(tmp_path / "a.png", parameters=text))
    assert (record.request.prompt, record.request.negative, record.request.seed) == ("a cube", "fog", 1)
    assert record.made["model"] == "other"


def test_models_of_other_programs_are_not_taken_for_ours(tmp_path: Path):
    text = "a cube\nSteps: 20, Sampler: Euler, CFG scale: 7, Seed: 1, Size: 512x512, Model: toybox, Version: v1.6.0"
    record = read_picture(_png_with(tmp_path / "a.png", parameters=text))
    assert record.made == {}
    assert record.request.solver == "euler"
    assert any("toybox" in note for note in record.notes)


@pytest.mark.parametrize("chunk", ["tEXt", "zTXt", "iTXt", "compressed iTXt"])
def test_every_kind_of_text_chunk_is_read(tmp_path: Path, chunk: str):
    info = PngImagePlugin.PngInfo()
    text = "une sphère\nSteps: 4, Sampler: Euler, Seed: 9"
    if "iTXt" in chunk:
        info.add_itxt("parameters", text, zip=chunk != "iTXt")
    else:
        info.add_text("parameters", text, zip=chunk == "zTXt")
    _image().save(tmp_path / "a.png", pnginfo=info)
    assert read_picture(tmp_path / "a.png").request.seed == 9


@pytest.mark.parametrize("name", ["a.jpg", "a.webp", "a.png"])
@pytest.mark.parametrize(
    "comment",
    [
        b"UNICODE\0" + "赤\nSteps: 4, Sampler: Euler, Seed: 9".encode("utf-16-le"),
        b"UNICODE\0" + "a\nSteps: 4, Sampler: Euler, Seed: 9".encode("utf-16-be"),
        b"ASCII\0\0\0" + b"a\nSteps: 4, Sampler: Euler, Seed: 9",
    ],
    ids=["utf-16-le", "utf-16-be", "ascii"],
)
def test_the_comment_of_exif_is_read(tmp_path: Path, name: str, comment: bytes):
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9286] = comment
    _image().save(tmp_path / name, exif=exif.tobytes())  # PNG takes a nested table as bytes only
    record = read_picture(tmp_path / name)
    assert (record.request.seed, record.request.solver) == (9, "euler")


@pytest.mark.parametrize(
    ("texts", "words"),
    [({"prompt": '{"3": {}}', "workflow": "{}"}, "ComfyUI"), ({"invokeai_metadata": "{}"}, "InvokeAI")],
)
def test_programs_whose_form_is_not_read_are_named(tmp_path: Path, texts: dict[str, str], words: str):
    with pytest.raises(PictureError, match=words):
        read_picture(_png_with(tmp_path / "a.png", **texts))


@pytest.mark.parametrize("name", ["x" * 5000, "~nosuchuser/a.png", "a\0b.png"])
def test_names_that_no_file_can_have(name: str):
    with pytest.raises(PictureError, match="there is no picture"):
        read_picture(Path(name))


def test_grid_places_pictures_in_rows():
    sheet = make_grid([_image(colour) for colour in ("red", "green", "blue")])
    assert sheet.size == (128, 64)
    assert [sheet.getpixel(at) for at in ((1, 1), (65, 1), (1, 33), (65, 33))] == [
        (255, 0, 0), (0, 128, 0), (0, 0, 255), (255, 255, 255),
    ]  # fmt: skip
