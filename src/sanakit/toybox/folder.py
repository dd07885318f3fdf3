"""A folder of Toybox pictures with captions, laid out like a user's training set: to try `sanakit train` with.

OUT/000000.png ...     pictures
OUT/captions.jsonl     {"key": "000000", "captions": [{"text": ...}, ...]} a line
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import torch
from PIL import Image

from sanakit.base.errors import OutputError
from sanakit.base.files import atomic_write, ensure_writable_folder
from sanakit.base.json_text import parse_json
from sanakit.base.locks import hold
from sanakit.toybox.captions import caption
from sanakit.toybox.grammar import Scene, Split
from sanakit.toybox.render import render
from sanakit.toybox.sampling import SEED_STRIDE, sample_scene

TABLE = "captions.jsonl"
_PATIENCE = 60.0  # seconds that one who writes the table waits for another


def write_pictures(
    folder: Path,
    count: int,
    *,
    size: int = 256,
    split: Split = "train",
    seed: int = 0,
    captions: int = 1,
    workers: int = 1,
    compiled: bool = False,
) -> Iterator[int]:
    """Render scenes 0..count-1 of (split, seed) into a folder; yield the number of finished pictures.

    Existing pictures are kept, so a second call resumes; so are captions of other pictures and added captions.
    captions: different texts per picture, if a scene has that many. compiled: renders four times as fast after half a
    minute of compiling, and needs a C++ compiler. The result depends neither on `workers` nor on interruptions.
    Raises OutputError, also if the folder holds other pictures under these names.
    """
    ensure_writable_folder(folder)
    scenes = [sample_scene(seed * SEED_STRIDE + number, split) for number in range(count)]
    lines = [_record(number, scene, captions) for number, scene in enumerate(scenes)]
    with hold(folder / f".{TABLE}.lock", "writes captions", wait=_PATIENCE):
        there = _lines(folder / TABLE)
        _check_same(folder, scenes, there, size)
        atomic_write(folder / TABLE, "".join(_merged(there, lines)).encode("utf-8", "surrogateescape"))
    missing = [number for number in range(count) if not _path(folder, number).exists()]
    done = count - len(missing)
    yield done
    draw = partial(_draw, folder, size, compiled)
    chosen = [scenes[number] for number in missing]
    if workers <= 1:
        for number, scene in zip(missing, chosen, strict=True):
            draw(number, scene)
            yield (done := done + 1)
        return
    with worker_pool(workers) as pool:
        for _ in pool.map(draw, missing, chosen, chunksize=16):
            yield (done := done + 1)


def _record(number: int, scene: Scene, captions: int) -> str:
    draws = (caption(scene, random.Random(1000 * number + place)) for place in range(4 * captions))
    texts = list(dict.fromkeys(draws))[:captions]
    return json.dumps({"key": f"{number:06d}", "captions": [{"text": text} for text in texts]}) + "\n"


def _lines(path: Path) -> list[str]:
    """Return the lines of an existing table, with their line ends."""
    if not path.exists():
        return []
    return [
        f"{line}\n" for line in path.read_text(encoding="utf-8", errors="surrogateescape").split("\n") if line
    ]


def _texts(line: str) -> tuple[str, list[str]]:
    """Key and captions of a line; an empty key if it has another form."""
    try:
        record = parse_json(line)
        return str(record["key"]), [str(caption["text"]) for caption in record["captions"]]
    except (ValueError, KeyError, TypeError):
        return "", []


def _merged(there: list[str], lines: list[str]) -> list[str]:
    """Return the lines of a table, replacing those that have fewer captions than the new ones; other lines stay."""
    new = {_texts(line)[0]: line for line in lines}
    merged = []
    for line in there:
        key, texts = _texts(line)
        ours = new.pop(key, None)
        merged.append(line if ours is None or set(_texts(ours)[1]) <= set(texts) else ours)
    return [*merged, *new.values()]


def _check_same(folder: Path, scenes: Sequence[Scene], there: list[str], size: int) -> None:
    """Raise OutputError if existing pictures don't show these scenes at this size."""
    known = dict(_texts(line) for line in there)
    for number, scene in enumerate(scenes):
        path = _path(folder, number)
        if not path.exists():
            continue
        _, texts = _texts(_record(number, scene, 1))
        try:
            with Image.open(path) as picture:
                fits = picture.size == (size, size) and texts[0] in known.get(path.stem, ())
        except (OSError, SyntaxError):
            fits = False
        if not fits:
            raise OutputError(
                f"{path} is there and is another picture than this command makes: choose another folder, or the "
                f"--size, --split and --seed it was made with"
            )
        return  # checking the first is enough: all come from one seed


def _draw(folder: Path, size: int, compiled: bool, number: int, scene: Scene) -> None:
    levels = render_uint8(scene, size, compiled).permute(1, 2, 0).contiguous()
    picture = Image.fromarray(levels.numpy())
    atomic_write(_path(folder, number), lambda draft: picture.save(draft, format="PNG"))


def _path(folder: Path, number: int) -> Path:
    return folder / f"{number:06d}.png"


def render_uint8(scene: Scene, size: int, compiled: bool) -> torch.Tensor:
    """Render a scene as uint8 [3, size, size]."""
    return (render([scene], size, compiled=compiled)[0] * 255).round_().to(torch.uint8)


def worker_pool(workers: int) -> ProcessPoolExecutor:
    """Start processes for rendering, with one thread of torch each."""
    return ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_one_thread)


def _one_thread() -> None:
    torch.set_num_threads(1)
