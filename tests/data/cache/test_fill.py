"""Filling a cache and reading it in training: what is made, reused and skipped, and what does not fit is told."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

from sanakit.base.errors import ConfigError, OutputError
from sanakit.base.precision import decide
from sanakit.data.buckets import crop_for, picture_tensor
from sanakit.data.cache import (
    CachedSet,
    TensorCache,
    fill_for_model,
    latent_fingerprint,
    latent_key,
    open_for_model,
    text_fingerprint,
    text_key,
)
from sanakit.data.cache.encoders import picture_encoder, text_encoder
from sanakit.data.cache.fill import captions_of, fill_latents, fill_texts
from sanakit.data.cache.index import CachedEncoder, note_encoder, note_pictures, read_encoders, read_pictures
from sanakit.data.cache.store import shards_in
from sanakit.data.items import PictureSet
from sanakit.data.source import open_set
from sanakit.text import CHI
from sanakit.weights import ModelSpec, read_model_spec
from tests.data.pictures import png, write_files, write_plain
from tests.oracles.tiny import Folders, Recipe

CPU = decide("cpu", "fp32")
SIZES = ((70, 64), (64, 64), (100, 40))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Folders(tmp_path_factory.mktemp("tiny"))()


@pytest.fixture(scope="module")
def model(folder: Path) -> ModelSpec:
    return read_model_spec(folder)


@pytest.fixture
def pictures(tmp_path: Path) -> PictureSet:
    return open_set(write_plain(tmp_path / "set", 7, SIZES))


def buckets_of(pictures: PictureSet) -> list[tuple[int, int]]:
    return [(32, 96) if item.width == 100 else (64, 64) for item in pictures]


class Encoder:
    """Stands in for a network: counts what it sees, and fails at picture number `stop`."""

    def __init__(self, stop: int = 10**9) -> None:
        self.seen, self.loaded, self.stop = 0, 0, stop

    def load(self):  # noqa: ANN201  a bound method, of pictures or of texts
        self.loaded += 1
        return self

    def __call__(self, batch):  # noqa: ANN001, ANN204  Tensor or list
        self.seen += len(batch)
        if self.seen > self.stop:
            raise KeyboardInterrupt
        if isinstance(batch, torch.Tensor):
            return batch.float().mean((2, 3))[:, :, None, None]
        return [torch.full((len(text) + 1, 2), float(len(text))) for text in batch]


def test_every_picture_is_encoded_once(pictures: PictureSet, tmp_path: Path) -> None:
    cache, encoder = TensorCache(tmp_path / "cache"), Encoder()
    reports = list(fill_latents(pictures, buckets_of(pictures), cache, "m", encoder.load, batch=2))
    assert reports[-1].made == 7 and reports[-1].done == reports[-1].total == 7 and encoder.loaded == 1
    assert reports[-1].remaining == 0 and [r.done for r in reports] == sorted(r.done for r in reports)
    for index, item in enumerate(pictures):
        crop = crop_for(item, buckets_of(pictures)[index])
        key = latent_key(read_pictures(cache.folder, pictures.path)[item.key], crop, "m")
        wanted = picture_tensor(pictures.read(index), crop).float().mean((1, 2))
        assert torch.equal(TensorCache(cache.folder).get(key)["latent"].flatten(), wanted)  # type: ignore[index]
    second = Encoder()
    again = list(fill_latents(pictures, buckets_of(pictures), TensorCache(cache.folder), "m", second.load))
    assert (again[-1].made, again[-1].reused, second.loaded) == (0, 7, 0)


def test_an_interruption_loses_nothing_that_was_made(pictures: PictureSet, tmp_path: Path) -> None:
    cache = TensorCache(tmp_path / "cache")
    with pytest.raises(KeyboardInterrupt):
        list(fill_latents(pictures, buckets_of(pictures), cache, "m", Encoder(stop=4).load, batch=2))
    assert len(TensorCache(cache.folder)) == 4
    walk = fill_latents(
        pictures, buckets_of(pictures), TensorCache(cache.folder), "m", Encoder().load, batch=1
    )
    next(walk)
    walk.close()
    assert len(TensorCache(cache.folder)) == 5
    last = list(fill_latents(pictures, buckets_of(pictures), TensorCache(cache.folder), "m", Encoder().load))[
        -1
    ]
    assert (last.made, last.reused) == (2, 5)


def test_a_full_disk_ends_the_walk_in_one_sentence(
    pictures: PictureSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = TensorCache(tmp_path / "cache")
    walk = fill_latents(pictures, buckets_of(pictures), cache, "m", Encoder().load, batch=2, every=0)
    next(walk)

    def refuse(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as full:
        full.setattr(os, "fsync", refuse)
        with pytest.raises(OutputError, match="No space left on device"):
            list(walk)
    assert len(TensorCache(cache.folder)) == 2
    last = list(fill_latents(pictures, buckets_of(pictures), TensorCache(cache.folder), "m", Encoder().load))[
        -1
    ]
    assert (last.made, last.reused) == (5, 2)


def test_shards_are_written_by_the_clock_too(pictures: PictureSet, tmp_path: Path) -> None:
    cache = TensorCache(tmp_path / "cache")
    list(fill_latents(pictures, buckets_of(pictures), cache, "m", Encoder().load, batch=2, every=0))
    assert len(shards_in(cache.folder)) == 4


def test_what_another_process_made_meanwhile_is_not_made_again(pictures: PictureSet, tmp_path: Path) -> None:
    cache = TensorCache(tmp_path / "cache")
    walk = fill_latents(pictures, [(64, 64)] * 7, cache, "m", Encoder().load, batch=1, every=0)
    next(walk)
    list(fill_latents(pictures, [(64, 64)] * 7, TensorCache(cache.folder), "m", Encoder().load))
    last = list(walk)[-1]
    assert last.made + last.reused == 7 and last.reused >= 4


def test_pictures_that_break_are_told(tmp_path: Path) -> None:
    pictures = open_set(write_files(tmp_path / "set", {"a.png": png(), "b.png": png()[:300]}))
    last = list(fill_latents(pictures, [(64, 64)] * 2, TensorCache(tmp_path / "c"), "m", Encoder().load))[-1]
    assert (last.made, last.done) == (1, 2) and [one.key for one in last.skipped] == ["b"]


def test_captions_are_encoded_once_with_the_empty_one(pictures: PictureSet, tmp_path: Path) -> None:
    cache, encoder = TensorCache(tmp_path), Encoder()
    captions = captions_of(pictures)
    assert captions[0] == "" and len(captions) == 8 and captions_of(list(pictures) * 2) == captions
    last = list(fill_texts([*captions, captions[1]], cache, "t", encoder.load, batch=3))[-1]
    assert (last.made, last.total) == (8, 8)
    for caption in captions:
        states = cache.get(text_key(caption, "t"))["states"]  # type: ignore[index]
        assert states.shape == (len(caption) + 1, 2)
    last = list(fill_texts([*captions, "new"], cache, "t", encoder.load))[-1]
    assert (last.made, last.reused) == (1, 8)


def test_keys_depend_on_everything_they_should(pictures: PictureSet) -> None:
    crop, other = crop_for(pictures[0], (64, 64)), crop_for(pictures[0], (64, 64), 0.0)
    keys = [latent_key("a", crop, "m"), latent_key("b", crop, "m"), latent_key("a", other, "m")]
    keys += [latent_key("a", crop, "n"), text_key("a", "m"), text_key("A", "m"), text_key("a", "n")]
    assert len(set(keys)) == len(keys) and all(len(key) == 32 for key in keys)
    assert latent_key("a", crop, "m") == keys[0]


def run(pictures: PictureSet, cache: Path, model: ModelSpec, name: str = "tiny", **options: object) -> list:
    walk = fill_for_model(
        pictures, buckets_of(pictures), TensorCache(cache), model, CPU, name=name, batch=3, **options
    )  # type: ignore[arg-type]
    return list({report.kind: report for report in walk}.values())


def test_a_model_s_cache_is_what_the_model_computes(
    pictures: PictureSet, model: ModelSpec, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    assert [(report.kind, report.made) for report in run(pictures, cache, model)] == [
        ("latent", 7),
        ("text", 8),
    ]
    assert [(report.made, report.reused) for report in run(pictures, cache, model)] == [(0, 7), (0, 8)]
    opened = open_for_model(cache, pictures.path, model, name="tiny")
    crops = [crop_for(item, bucket) for item, bucket in zip(pictures, buckets_of(pictures), strict=True)]
    assert all(map(opened.holds, pictures, crops))
    encode, read = picture_encoder(model, CPU), text_encoder(model, CPU)
    for index, (item, crop) in enumerate(zip(pictures, crops, strict=True)):
        latent = opened.latent(item, crop)
        assert latent.shape == (8, crop.height // 32, crop.width // 32)
        alone = encode(picture_tensor(pictures.read(index), crop)[None])[0]
        torch.testing.assert_close(latent, alone, rtol=1e-4, atol=1e-5)
    for caption in captions_of(pictures):
        torch.testing.assert_close(opened.states(caption), read([caption])[0], rtol=1e-4, atol=1e-5)


def test_encoders_are_those_of_the_pipeline(model: ModelSpec) -> None:
    from sanakit.pipeline.components import Components
    from sanakit.pipeline.engine import choose_engine

    parts = Components(model, CPU, choose_engine("off", CPU))
    states = parts.text.encode(["A Red cube"], CHI, lowercase=True)
    torch.testing.assert_close(
        text_encoder(model, CPU)(["A Red cube", "b"])[0], states.states[0], rtol=1e-4, atol=1e-5
    )
    nothing = parts.text.encode([""], None, lowercase=True)  # as the pipeline reads no prompt
    made = text_encoder(model, CPU)(["b", "", "A Red cube"])
    torch.testing.assert_close(made[1], nothing.states[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(made[2], states.states[0], rtol=1e-4, atol=1e-5)
    picture = torch.arange(3 * 64 * 64, dtype=torch.uint8).reshape(1, 3, 64, 64)
    latent = picture_encoder(model, CPU)(picture)
    assert torch.isfinite(parts.autoencoder.decode(latent / model.autoencoder.scaling_factor)).all()
    import diffusers

    oracle = diffusers.AutoencoderDC.from_pretrained(model.autoencoder_folder).eval()
    with torch.no_grad():
        wanted = oracle.encode(picture.float() / 127.5 - 1).latent * model.autoencoder.scaling_factor
    torch.testing.assert_close(latent, wanted, rtol=1e-3, atol=1e-4)


def test_fingerprints_change_with_weights_tokenizer_and_reading(folder: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    before = read_model_spec(folder)
    assert (latent_fingerprint(read_model_spec(copy)), text_fingerprint(read_model_spec(copy))) == (
        latent_fingerprint(before), text_fingerprint(before),
    )  # fmt: skip
    weights = copy / "vae/diffusion_pytorch_model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    assert latent_fingerprint(read_model_spec(copy)) != latent_fingerprint(before)
    assert text_fingerprint(read_model_spec(copy)) == text_fingerprint(before)
    (copy / "sanakit.json").write_text('{"instruct": false}')
    assert text_fingerprint(read_model_spec(copy)) != text_fingerprint(before)


def test_another_model_s_cache_is_told(
    pictures: PictureSet, folder: Path, model: ModelSpec, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    run(pictures, cache, model, name="first")
    other = read_model_spec(Folders(tmp_path / "other")(Recipe(seed=1)))
    with pytest.raises(
        ConfigError, match=r"filled by another autoencoder \(that of first\).*--model second --out"
    ):
        open_for_model(cache, pictures.path, other, name="second")
    TensorCache(tmp_path / "half")
    note_encoder(tmp_path / "half", "m", read_encoders(cache)[latent_fingerprint(model)])
    with pytest.raises(ConfigError, match="holds nothing of any text encoder"):
        CachedSet(tmp_path / "half", pictures.path, latent="m", text="t", model="x")
    with pytest.raises(ConfigError, match="there is no cache at"):
        open_for_model(tmp_path / "nowhere", pictures.path, model, name="first")


def test_another_crop_picture_or_caption_is_told(
    pictures: PictureSet, model: ModelSpec, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    run(pictures, cache, model, usable=[0, 1])
    opened = open_for_model(cache, pictures.path, model, name="tiny")
    crops = [crop_for(item, (64, 64)) for item in pictures]
    assert [opened.holds(*pair) for pair in zip(pictures, crops, strict=True)] == [True] * 2 + [False] * 5
    with pytest.raises(ConfigError, match=r"lacks 002 at 64x64; .* 64x64, centre"):
        opened.latent(pictures[2], crops[2])
    with pytest.raises(ConfigError, match="lacks 000 at 96x32; it was filled for 64x64"):
        opened.latent(pictures[0], crop_for(pictures[0], (32, 96)))
    with pytest.raises(ConfigError, match=r"lacks the caption 'picture number 6'.*sanakit data cache"):
        opened.states("picture number 6")
    with pytest.raises(ConfigError, match="lacks 000"):  # of another set
        open_for_model(cache, tmp_path / "elsewhere", model, name="tiny").latent(pictures[0], crops[0])


def test_results_of_two_dtypes_are_not_mixed(pictures: PictureSet, model: ModelSpec, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    run(pictures, cache, model)
    walk = fill_for_model(
        pictures, buckets_of(pictures), TensorCache(cache), model, decide("cpu", "bf16"), name="tiny"
    )
    with pytest.raises(ConfigError, match="in float32, not bfloat16: use --dtype float32"):
        next(walk)


def test_a_changed_picture_is_encoded_anew(pictures: PictureSet, model: ModelSpec, tmp_path: Path) -> None:
    cache = TensorCache(tmp_path / "cache")
    list(fill_latents(pictures, [(64, 64)] * 7, cache, "m", Encoder().load))
    Image.new("RGB", SIZES[0]).save(pictures.path / "000.png")
    last = list(fill_latents(open_set(pictures.path), [(64, 64)] * 7, cache, "m", Encoder().load))[-1]
    assert (last.made, last.reused) == (1, 6)


def test_notes_that_are_none(tmp_path: Path) -> None:
    assert read_encoders(tmp_path) == {} and read_pictures(tmp_path, tmp_path) == {}
    (tmp_path / "cache.json").write_text("[1")
    with pytest.raises(ConfigError, match=r"cache\.json can't be read: delete it"):
        read_encoders(tmp_path)
    (tmp_path / "cache.json").unlink()
    note_encoder(tmp_path, "m", CachedEncoder(kind="latent", model="a", dtype="float32", sizes=("64x64",)))
    note_encoder(
        tmp_path, "m", CachedEncoder(kind="latent", model="a", dtype="float32", sizes=("32x96", "64x64"))
    )
    assert read_encoders(tmp_path)["m"].sizes == ("64x64", "32x96")
    note_pictures(tmp_path, tmp_path, {"a": "1"})
    note_pictures(tmp_path, tmp_path, {"b": "2"})
    assert read_pictures(tmp_path, tmp_path) == {"a": "1", "b": "2"}
