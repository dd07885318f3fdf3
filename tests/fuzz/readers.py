"""What is fuzzed: one row per reader, with a maker of a valid file and the function that reads it."""

from __future__ import annotations

import io
import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.fuzz import control
from tests.fuzz.mutate import Damage, damage_bytes, damage_json, damage_lines


@dataclass(frozen=True, kw_only=True)
class Reader:
    """A row. make: writes what belongs together into a folder; file: the one that is damaged, seen from there.

    read: opens it as sanakit does, given the folder, and may raise typed errors only.
    """

    name: str
    make: Callable[[Path], object]
    file: str
    read: Callable[[Path], object]
    damage: Damage


def _tensors() -> dict[str, torch.Tensor]:
    return {"a": torch.arange(6.0).reshape(2, 3), "b.weight": torch.ones(4, dtype=torch.bfloat16)}


def _official() -> dict[str, torch.Tensor]:
    from sanakit.transformer import SanaTransformer, TransformerConfig
    from sanakit.weights.formats import sana_pth

    config = TransformerConfig(width=32, depth=1, heads=1, cross_heads=2, text_width=8, latent_channels=4)
    state = sana_pth.table(config).to_theirs(SanaTransformer(config).state_dict())
    return {**state, "pos_embed": torch.zeros(1, 16, 32)}


def _make_safetensors(folder: Path) -> None:
    from sanakit.weights import write_safetensors

    write_safetensors(folder / "model.safetensors", _tensors())


def _read_safetensors(folder: Path) -> None:
    from sanakit.weights import open_weights

    dict(open_weights(folder, "model"))


def _make_index(folder: Path) -> None:
    from sanakit.weights import save_weights

    save_weights(folder, {f"t{i}": torch.zeros(4) for i in range(4)}, "model", max_shard_size=16)


def _make_pth(folder: Path, **options: Any) -> None:
    rng = {
        "numpy": np.random.RandomState(0).get_state(),
        "python": random.Random(0).getstate(),
        "torch": torch.zeros(3),
    }
    torch.save({"state_dict": _official(), "rng_state": rng, "epoch": 3}, folder / "x.pth", **options)


def _read_pth(folder: Path) -> None:
    from sanakit.transformer import SanaTransformer
    from sanakit.weights import Hints, load_transformer, open_checkpoint
    from sanakit.weights.identify import describe_file

    opened = open_checkpoint(folder / "x.pth", verify=True)
    found, _ = describe_file(folder / "x.pth", opened.shapes, Hints(cross_heads=2))
    with torch.device("meta"):
        model = SanaTransformer(found.transformer)
    load_transformer(model, found.transformer, folder / "x.pth")


def _make_lora(folder: Path) -> None:
    from sanakit.layers.lora import LowRank
    from sanakit.weights import LoRA, write_lora, write_safetensors

    low = LowRank(
        down=torch.ones(2, 2, 4), up=torch.ones(2, 4, 2), groups=(0, 2), of=3, magnitude=torch.ones(2, 4)
    )
    write_lora(folder / "x.safetensors", LoRA(layers={"blocks.0.attention.qkv": low}))
    name = "base_model.model.transformer_blocks.0.attn2.to_q"
    pair = {f"{name}.lora_A.weight": torch.ones(2, 4), f"{name}.lora_B.weight": torch.ones(4, 2)}
    write_safetensors(folder / "adapter_model.safetensors", pair)
    fields = {"r": 2, "lora_alpha": 4, "alpha_pattern": {"to_q": 3}, "use_rslora": True, "bias": "none"}
    (folder / "adapter_config.json").write_text(json.dumps(fields))


def _read_lora(folder: Path, name: str) -> None:
    from sanakit.weights import read_lora

    read_lora(folder / name)


def _make_description(folder: Path) -> None:
    from sanakit.transformer import TransformerConfig
    from sanakit.weights.convert import write_checkpoint
    from sanakit.weights.description import Description, description_json
    from sanakit.weights.formats.diffusers_scheduler import Schedule

    config = TransformerConfig(
        width=32, depth=1, heads=1, cross_heads=2, text_width=8, latent_channels=4, sample_size=4
    )
    found = Description(transformer=config, source="", schedule=Schedule())
    write_checkpoint(folder / "x.pth", _official(), description_json(found))


def _make_model(folder: Path) -> None:
    from tests.oracles.tiny import Recipe, write_tiny

    write_tiny(folder, Recipe(width=8, depth=1, qk_norm=True))
    (folder / "sanakit.json").write_text('{"dialect": "official", "instruct": false, "bins": true}')


def _read_model(folder: Path) -> None:
    """What drawing does before it draws: the configurations, the plan for memory, and all weights."""
    from sanakit.autoencoder import DCAE
    from sanakit.pipeline.shapes import Shapes
    from sanakit.text import build_gemma
    from sanakit.transformer import SanaTransformer
    from sanakit.weights import load_autoencoder, load_text_encoder, load_transformer, read_model_spec

    found = read_model_spec(folder)
    Shapes(transformer=found.transformer, autoencoder=found.autoencoder, text=found.text_config)
    with torch.device("meta"):
        transformer, autoencoder = SanaTransformer(found.transformer), DCAE(found.autoencoder)
    load_transformer(transformer, found.transformer, found.transformer_source)
    load_autoencoder(autoencoder, found.autoencoder, found.autoencoder_folder)
    load_text_encoder(build_gemma(found.text_config, "meta"), found.text_folder)


def _read_tokenizer(folder: Path) -> None:
    from sanakit.text import load_tokenizer

    load_tokenizer(folder / "tokenizer")("a red cube")


def _make_picture(folder: Path) -> None:
    from PIL import Image

    from sanakit.pipeline.png import Record, write_picture
    from sanakit.pipeline.request import ImageRequest

    request = ImageRequest(
        prompt="a cube, (red:1.2)", negative="blur", seed=7, steps=3, guidance=4.5, width=64, height=64
    )
    write_picture(
        folder / "a.png", Image.new("RGB", (16, 16)), Record(request=request, made={"model": "toybox"})
    )


def _read_picture(folder: Path) -> None:
    from sanakit.pipeline.png import read_picture

    read_picture(folder / "a.png")


PARAMETERS = (
    b"a cat, (sharp:1.2)\nNegative prompt: blur\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 512x768, "
    b'Model: x, Note: "a, b: c", Version: v1.9'
)


def _make_parameters(folder: Path) -> None:
    (folder / "parameters.txt").write_bytes(PARAMETERS)


def _read_parameters(folder: Path) -> None:
    from sanakit.pipeline.parameters import parse_parameters

    parse_parameters((folder / "parameters.txt").read_bytes().decode("latin-1"))


def _make_image(folder: Path, form: str) -> None:
    from PIL import Image

    pixels = np.random.RandomState(0).randint(0, 255, (24, 16, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    options = {"exif": exif} if form in ("JPEG", "WEBP", "PNG") else {}
    Image.fromarray(pixels).save(folder / "a", format=form, **options)


def _read_image(folder: Path) -> None:
    from sanakit.data.image import cut_picture, picture_size, thumbnail

    data = (folder / "a").read_bytes()
    picture_size(data)
    thumbnail(data, (8, 8))
    cut_picture(data, (24, 16), (0, 0, 8, 8))


def _png() -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (200, 10, 10)).save(buffer, "PNG")
    return buffer.getvalue()


def _make_set(folder: Path, files: dict[str, bytes]) -> None:
    for name, content in {"a.png": _png(), "b.png": _png(), **files}.items():
        (folder / name).write_bytes(content)


def _make_shard(folder: Path) -> None:
    from tests.data.pictures import write_tar

    record = json.dumps({"caption": "a cube", "score": 0.5}).encode()
    write_tar(folder / "s.tar", {"0.png": _png(), "0.json": record, "1.png": _png(), "1.txt": b"a ball"})


def _make_parquet(folder: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    _make_set(folder, {})
    table = pyarrow.table(
        {"file_name": ["a.png", "b.png"], "caption": ["a cube", "a ball"], "score": [0.5, 0.25]}
    )
    pyarrow.parquet.write_table(table, folder / "metadata.parquet")


def _read_set(folder: Path) -> None:
    """What a run does: every item with its captions, and the pictures' bytes."""
    from sanakit.base.errors import PictureError
    from sanakit.data import open_set

    pictures = open_set(folder)
    for index in range(len(pictures)):
        try:
            pictures.read(index)
        except PictureError:
            continue


_SHARD = "shard-000000000000"
_METADATA = b"\n".join(
    json.dumps(line).encode()
    for line in (
        {"file_name": "a.png", "caption": "a cube", "score": 0.5},
        {"file_name": "b.png", "text": "a ball"},
    )
)
_YAML = b"""\
folder: run
base: toybox
batch: 4
phases: [{steps: 6, size: 64}]
data: {path: set, square: true, held: 2}
model: {start: scratch, changes: {depth: 1, width: 64, heads: 2, cross_heads: 2}}
optimizer: {lr: 1e-3}
clip: 0.1
"""


def _make_yaml(folder: Path) -> None:
    (folder / "run.yaml").write_bytes(_YAML)


def _read_yaml(folder: Path) -> None:
    from sanakit.training.schema import read_config

    read_config(folder / "run.yaml")


def _make_checkpoint(folder: Path) -> None:
    from sanakit.training.checkpoint import Checkpoints

    for step in (1, 2):
        Checkpoints(folder).save(step, {"w": torch.ones(4)}, {"step": step})


def _read_checkpoint(folder: Path) -> None:
    from sanakit.training.checkpoint import Checkpoints, read_into

    newest = Checkpoints(folder).latest()
    if newest is not None:
        read_into(newest, {"w": torch.zeros(4)})


def _make_cache(folder: Path) -> None:
    from sanakit.data.cache.store import TensorCache

    cache = TensorCache(folder)
    cache.put("one", _tensors())
    shard = cache.flush()
    assert shard is not None
    for path in (shard, shard.with_suffix(".json")):
        path.rename(folder / f"{_SHARD}{path.suffix}")
    about = {"kind": "latent", "model": "x", "dtype": "float32", "sizes": ["64x64"]}
    (folder / "cache.json").write_text(json.dumps({"abcd": about}))


def _read_cache(folder: Path) -> None:
    from sanakit.base.errors import WeightsError
    from sanakit.data.cache.index import read_encoders
    from sanakit.data.cache.store import TensorCache, verify

    read_encoders(folder)
    cache = TensorCache(folder)
    for key in list(cache):
        try:
            cache.get(key)
        except WeightsError:
            continue
    list(verify(folder))


def _model_rows() -> list[Reader]:
    files = (
        "model_index.json", "transformer/config.json", "vae/config.json", "scheduler/scheduler_config.json",
        "text_encoder/config.json", "sanakit.json",
    )  # fmt: skip
    rows = [
        Reader(name=f"model: {file}", make=_make_model, file=file, read=_read_model, damage=damage_json)
        for file in files
    ]
    for file in ("tokenizer/tokenizer.json", "tokenizer/tokenizer_config.json"):
        rows.append(
            Reader(
                name=f"model: {file}", make=_make_model, file=file, read=_read_tokenizer, damage=damage_json
            )
        )
    return rows


def _set_rows() -> list[Reader]:
    tables = {
        "metadata.jsonl": (_METADATA, damage_lines),
        "captions.jsonl": (_METADATA.replace(b"file_name", b"key").replace(b".png", b""), damage_lines),
        "metadata.csv": (b'file_name,caption\na.png,"a ""red"" cube"\nb.png,a ball\n', damage_bytes),
        "a.txt": ("a cube, größer\n".encode(), damage_bytes),
        "a.json": (
            b'{"caption": "a cube", "score": 0.5, "captions": [{"text": "x", "score": 1}]}',
            damage_json,
        ),
    }
    rows = [
        Reader(
            name=f"set: {name}",
            make=partial(_make_set, files={name: content}),
            file=name,
            read=_read_set,
            damage=damage,
        )
        for name, (content, damage) in tables.items()
    ]
    rows += [
        Reader(
            name=f"picture: {form}",
            make=partial(_make_image, form=form),
            file="a",
            read=_read_image,
            damage=damage_bytes,
        )
        for form in ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", "PPM")
    ]
    return rows


def _run_rows() -> list[Reader]:
    newest = "checkpoints/step-00000002"
    rows = [
        Reader(
            name=f"checkpoint: {file}",
            make=_make_checkpoint,
            file=f"{newest}/{file}",
            read=_read_checkpoint,
            damage=damage,
        )
        for file, damage in (("manifest.json", damage_json), ("run.json", damage_json))
    ]
    for file, damage in (
        (f"{_SHARD}.json", damage_json),
        (f"{_SHARD}.safetensors", damage_bytes),
        ("cache.json", damage_json),
    ):
        name = "cache: " + file.replace(_SHARD, "shard")
        rows.append(Reader(name=name, make=_make_cache, file=file, read=_read_cache, damage=damage))
    return rows


READERS: tuple[Reader, ...] = (
    Reader(name="safetensors", make=_make_safetensors, file="model.safetensors", read=_read_safetensors,
           damage=damage_bytes),
    Reader(name="safetensors index", make=_make_index, file="model.safetensors.index.json", read=_read_safetensors,
           damage=damage_json),
    Reader(name=".pth", make=_make_pth, file="x.pth", read=_read_pth, damage=damage_bytes),
    Reader(name=".pth before 1.6", make=partial(_make_pth, _use_new_zipfile_serialization=False), file="x.pth",
           read=_read_pth, damage=damage_bytes),
    Reader(name="x.json beside x.pth", make=_make_description, file="x.json", read=_read_pth, damage=damage_json),
    Reader(name="LoRA", make=_make_lora, file="x.safetensors", read=partial(_read_lora, name="x.safetensors"),
           damage=damage_bytes),
    Reader(name="LoRA: adapter_config.json", make=_make_lora, file="adapter_config.json",
           read=partial(_read_lora, name="adapter_model.safetensors"), damage=damage_json),
    *_model_rows(),
    Reader(name="ControlNet: config.json", make=control.make_folder, file="config.json", read=control.read_folder,
           damage=damage_json),
    Reader(name="ControlNet: .pth", make=control.make_file, file="x.pth", read=control.read_file, damage=damage_bytes),
    Reader(name="picture's record", make=_make_picture, file="a.png", read=_read_picture, damage=damage_bytes),
    Reader(name="parameters", make=_make_parameters, file="parameters.txt", read=_read_parameters, damage=damage_lines),
    *_set_rows(),
    Reader(name="set: shard", make=_make_shard, file="s.tar", read=_read_set, damage=damage_bytes),
    Reader(name="set: Parquet", make=_make_parquet, file="metadata.parquet", read=_read_set, damage=damage_bytes),
    *_run_rows(),
    Reader(name="training YAML", make=_make_yaml, file="run.yaml", read=_read_yaml, damage=damage_lines),
)  # fmt: skip
