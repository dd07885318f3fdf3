"""Nothing in a set stops a run: everything that pictures of strangers may be lies beside three good ones."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import yaml
from PIL import Image

from tests.cli.running import Sana
from tests.data.pictures import encoded, jpeg, png, write_files, write_plain
from tests.data.test_folder import special
from tests.data.test_image import REFUSED, chunk, exif_of, with_chunk
from tests.data.test_parquet import HUB, ODD
from tests.data.test_tar import DAMAGE, END, header
from tests.data.test_tar import ODD as MEMBERS
from tests.training.sets import TINY

LINES = [
    '{"key": "000", "score": 400, "text": "of a large score"}',
    f'{{"key": "000", "score": {"9" * 5000}, "text": "of many digits"}}',
    '{"key": "000", "score": NaN, "text": "of no number"}',
    '{"key": "000", "text": {"deep": [7]}}',
    "[" * 100_000,
    '{"file_name": "C:\\\\Users\\\\me\\\\001.png", "text": "from Windows"}',
    '{"file_name": "nowhere.png", "text": "of nothing"}',
    '{"file_name": ["a"], "text": "of a list"}',
    "\x00\x01\x02",
    "x" * 5_000_000,
]


def hostile(root: Path) -> None:
    """Three good pictures, and everything else."""
    write_plain(root, 3)
    files: dict[str, bytes | str] = {
        f"{name.replace(' ', '-')}.png": make() for name, (make, _) in REFUSED.items()
    }
    files |= {f"{name.rpartition('.')[0]}.txt": "a caption" for name in files}
    files |= {
        "latin.png": png(seed=70), "latin.txt": b"caf\xe9",
        "wide.png": encoded(Image.effect_noise((20_000, 1), 50)), "wide.txt": "a line",
        "late.png": with_chunk(png(seed=78), b"eXIf", exif_of(8)[6:], before=b"IEND"),
        "late.txt": "EXIF behind the pixels",
        "profile.png": with_chunk(png(seed=71), b"iCCP", b"p\0\0" + bytes(3_000_000)), "profile.txt": "a profile",
        "exif.jpg": jpeg()[:20] + b"\xff\xe1\x00\x20Exif\0\0" + b"\xff" * 24 + jpeg()[20:], "exif.txt": "odd EXIF",
        "late-cut.png": png(64, 64, 72)[:-30], "late-cut.txt": "pixels that end",
        "apng.png": with_chunk(png(seed=73), b"acTL", b"\xff" * 8), "apng.txt": "one frame",
        "rubbish.png": b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", b"\0" * 13),
        "captions.jsonl": "\n".join(LINES),
        "metadata.csv": b"file_name,text\n\xff.png,x\n001.png," + b"y" * 200_000 + b"\n\0\n",
        "deep.json": "[" * 100_000, "deep.png": png(seed=74),
        "huge.json": '{"score": ' + "1" * 5000 + "}", "huge.png": png(seed=75),
        "gz.tar": gzip.compress(bytes(10_000_000)), "packed.tar.gz": b"\x1f\x8b", "zeros.tar": bytes(3_000_000),
        "notes.xyz": b"?", "film.mov": b"?", **{f"{n}.heic": b"?" for n in range(5)},
        "a\nb\x1b[31m.png": png(seed=76), "a\nb\x1b[31m.txt": "a name of two lines",
        "odd.tar": header("0.png", b"0", b"%011o\0" % len(png(seed=80)), png(seed=80))
        + b"".join(part for part, _ in MEMBERS.values()) + END,
        **{f"{name.replace(' ', '-')}.tar": part + END for name, (part, _) in DAMAGE.items()},
    }  # fmt: skip
    write_files(root, files)
    (root / "captions.jsonl").rename(root / "lines.jsonl")
    special(root)
    (root / "captions.jsonl").unlink()
    (root / "lines.jsonl").rename(root / "captions.jsonl")
    (root / "caf\udce9.png").write_bytes(png(seed=77))
    (root / "loop").symlink_to(root)
    (root / "all").symlink_to("/")
    with open(root / "sparse.png", "wb") as file:
        file.truncate(30 * 2**30)
    for number, (kind, column) in enumerate(ODD.items()):
        images = pyarrow.array([{"bytes": b"rubbish", "path": kind}, {"bytes": None, "path": None}], HUB)
        pyarrow.parquet.write_table(
            pyarrow.table({"image": images, "text": column}), root / f"{number}.parquet"
        )
        keyed = pyarrow.table({"key": ["000", "001"], "text": column, "score": column})
        pyarrow.parquet.write_table(keyed, root / f"keyed{number}.parquet")


FAULTY = (
    "pipe", "socket", "zero", "broken", "self", "sparse", "float-TIFF", "32-bit-TIFF", "PNG-bomb", "GIF-bomb",
    "PPM-bomb",
    "cut-PNG", "cut-JPEG", "late-cut", "rubbish", "0.parquet/0000000", "0.parquet",
)  # fmt: skip
NAMED = {
    "shard": (
        "gz.tar",
        "packed.tar.gz",
        "zeros.tar",
        "size-below-zero.tar",
        "pax-beyond-the-file.tar",
    ),
    "special": ("pipe.bin", "pipe.parquet", "pipe.tar", "zero.jsonl", "odd.tar/x"),
    "encoding": ("latin", "metadata.csv"),
    "record": ("captions.jsonl", "deep", "huge", "metadata.csv"),
    "score": ("captions.jsonl",),
    "lost": ("captions.jsonl",),
    "moved": ("captions.jsonl",),
    "no-caption": ("caf?",),
}


@pytest.mark.filterwarnings("ignore")  # Pillow has something to say of many of them
def test_check_cache_and_training_finish_and_name_each_fault(sana: Sana, tmp_path: Path) -> None:
    root = tmp_path / "set"
    hostile(root)
    before = sorted(os.listdir(root))
    check = sana(
        "data", "check", "set", "--base", 64, "--square", "--json", "report.json", "--write-keys", "keys.txt"
    )
    assert check.exit_code in (0, 2), check.output
    assert check.stdout.splitlines()[-1].startswith(("FIX: ", "STOP: ")), check.output
    report = json.loads((tmp_path / "report.json").read_text())
    told = {kind: {fault["key"] for fault in found} for kind, found in report["faults"].items()}
    assert set(FAULTY) <= told["corrupt"], set(FAULTY) - told["corrupt"]
    for kind, keys in NAMED.items():
        assert set(keys) - told["shard"] <= told[kind], (kind, set(keys) - told[kind])
    unread = {fault["text"].partition(",")[0] for fault in report["faults"]["unread"]}
    assert {"5 files .heic", "1 file .mov", "1 file .xyz"} <= unread
    sound = (tmp_path / "keys.txt").read_text().splitlines()
    assert {"000", "001", "002", "late", "profile", "apng"} <= set(sound)
    assert not set(sound) & {"late-cut", "latin", "deep"}

    cache = sana(
        "data", "cache", "set", "--model", "toybox", "--size", 64, "--square", "--out", "cache", "--json",
        "--dtype", "fp32",
    )  # fmt: skip
    assert cache.exit_code == 0, cache.output
    filled = json.loads(cache.stdout)
    assert filled["pictures"]["made"] >= 8
    assert {"late-cut"} <= {fault["key"] for fault in filled["faults"]}

    for keys in (None, "keys.txt"):
        folder = tmp_path / f"run-{keys}"
        data = {"path": "set", "cache": "cache", "square": True} | ({"keys": keys} if keys else {})
        config = {
            "folder": str(folder), "batch": 2, "phases": [{"steps": 2, "size": 64}], "model": TINY, "dtype": "fp32",
            "data": data, "report": 1, "schedule": {"warmup": 1},
        }  # fmt: skip
        (tmp_path / "run.yaml").write_text(yaml.safe_dump(config))
        train = sana("train", "run.yaml", "--device", "cpu")
        assert train.exit_code == 0, train.output
        assert "step 2/2" in train.stdout and (folder / "model").is_dir()
    assert sorted(os.listdir(root)) == before


def test_a_vision_model_that_trips_over_a_picture_goes_on(tmp_path: Path) -> None:
    from sanakit.data import open_set
    from sanakit.data.labels.labellers import captioning
    from sanakit.data.labels.run import label_here

    write_plain(tmp_path, 5)
    write_files(tmp_path, {"thin.png": encoded(Image.fromarray(np.zeros((1, 3000, 3), dtype=np.uint8)))})

    def captioner(pictures: list[Image.Image]) -> list[str]:
        if any(one.height == 1 for one in pictures):
            raise ValueError("absolute aspect ratio must be smaller than 200, got 3000")
        return ["seen"] * len(pictures)

    found = open_set(tmp_path)
    labelled = list(label_here(found, range(6), captioning(captioner, "m"), batch=6))
    assert [one.key for one in labelled if one.captions] == [f"{n:03d}" for n in range(5)]
    (fault,) = [one for one in labelled if one.fault]
    assert (fault.key, fault.fault) == (
        "thin", "the model can't take it (absolute aspect ratio must be smaller than 200, got 3000)",
    )  # fmt: skip
