"""The check: copies and leaks are found and others are not, each kind of fault is counted, and the verdict follows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from sanakit.base.errors import ConfigError
from sanakit.data import BucketRule, CheckReport, CheckRules, collect, conclude, examine, open_set
from sanakit.data.cost import cache_cost
from sanakit.data.duplicates import ImageHashes, copies_of, hash_image, leaks_between, near_pairs
from sanakit.pipeline.shapes import shapes_of
from tests.data.pictures import encoded, jpeg, picture, png, write_files, write_plain, write_tar

SHAPES = shapes_of("toybox")
SMALL = CheckRules(buckets=BucketRule(bases=(64,)))


def report_of(path: Path, rules: CheckRules = SMALL, against: Path | None = None, **options) -> CheckReport:
    def look(where: Path):
        pictures = open_set(where)
        return pictures, collect(pictures, examine(pictures))

    other = look(against) if against else None
    return conclude(
        *look(path),
        rules,
        autoencoder=SHAPES.autoencoder,
        text=SHAPES.text,
        against=(other[0], other[1].hashes) if other else None,
        **options,
    )


def keys(report: CheckReport, kind: str) -> list[str]:
    return [fault.key for fault in report.faults.get(kind, ())]


def hashes_of(*data: bytes) -> ImageHashes:
    hashes = ImageHashes(len(data))
    for index, one in enumerate(data):
        hashes.put(index, hash_image(one))
    return hashes


def test_a_good_set_is_go(tmp_path: Path) -> None:
    report = report_of(write_plain(tmp_path, 6, sizes=((64, 64), (96, 64))))
    assert (report.verdict, report.faults, report.pictures, report.usable) == ("GO", {}, 6, 6)
    assert sum(report.buckets.values()) == 6
    assert report.captions.count == 6
    assert report.sentence == "6 of 6 pictures are ready."


def test_copies_saved_again_are_found_and_others_are_not() -> None:
    image = picture(200, 150, seed=1)
    turned = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    hashes = hashes_of(
        encoded(image),
        encoded(image, "JPEG", quality=60),
        encoded(image.resize((120, 90), Image.Resampling.LANCZOS), "WEBP"),
        encoded(turned),
        *(png(200, 150, seed=seed) for seed in range(2, 30)),
    )
    pairs = near_pairs(hashes)
    assert pairs.tolist() == [[0, 1], [0, 2], [1, 2]]
    assert copies_of(pairs) == {1: 0, 2: 0}


def test_flat_pictures_of_other_colours_are_no_copies() -> None:
    flat = [
        encoded(Image.new("RGB", (64, 64), colour)) for colour in ("red", "green", "blue", "white", "red")
    ]
    assert near_pairs(hashes_of(*flat)).tolist() == [[0, 4]]


@given(st.integers(0, 2**32), st.integers(0, 8))
def test_near_pairs_are_those_of_comparing_all_with_all(seed: int, distance: int) -> None:
    draw = np.random.default_rng(seed)
    hashes = ImageHashes(80)
    hashes.known[:] = draw.random(80) < 0.9
    base = draw.integers(0, 2**63, 8).astype(np.uint64)
    flips = np.zeros(80, dtype=np.uint64)
    for bit in draw.integers(0, 64, (4, 80)).astype(np.uint64):
        flips ^= np.uint64(1) << bit
    hashes.across = base[draw.integers(0, 8, 80)] ^ flips
    known = np.flatnonzero(hashes.known)
    near = np.bitwise_count(hashes.across[:, None] ^ hashes.across[None]) <= distance
    brute = [[i, j] for i in known.tolist() for j in known.tolist() if i < j and near[i, j]]
    assert near_pairs(hashes, distance).tolist() == brute


def test_a_distance_that_finds_everything_is_refused() -> None:
    with pytest.raises(ConfigError, match="0 to 15 bits"):
        near_pairs(ImageHashes(3), 16)


def test_leaks_are_pairs_across_only() -> None:
    ours = hashes_of(png(seed=1), png(seed=2), png(seed=2), png(seed=3))
    theirs = hashes_of(png(seed=9), png(seed=9), png(128, 128, seed=2))
    assert leaks_between(ours, theirs).tolist() == [[1, 2], [2, 2]]


def test_every_kind_of_fault_is_listed(tmp_path: Path) -> None:
    root = write_plain(tmp_path / "set", 8, sizes=((200, 200),))
    files: dict[str, bytes | str] = {
        "a-cut.png": png(64, 64, 50)[:-40],
        "a-headless.png": b"nothing",
        "a-copy.jpg": jpeg(200, 200, 3),
        "a-exact.png": png(200, 200, 4),
        "a-small.png": png(30, 30, 51),
        "a-long.png": png(64, 64, 52),
        "a-wide.png": png(640, 64, 53),
        "a-blank.png": encoded(Image.new("RGB", (64, 64), (16, 32, 48))),
        "a-clear.webp": encoded(Image.new("RGBA", (64, 64), (200, 0, 0, 0)), "WEBP", lossless=True),
        "a-strange.heic": b"ftypheic",
        "a-silent.png": png(64, 64, 54),
        "a-latin.png": png(64, 64, 55),
        "a-latin.txt": b"\xe9",
        "cut.tar": write_tar(tmp_path / "whole.tar", {"0.png": png(seed=60), "0.txt": "x"}).read_bytes()[
            :700
        ],
        "more.jsonl": "{}",
    }
    captions = {
        f"{name.partition('.')[0]}.txt": name
        for name in files
        if "silent" not in name
        and "latin" not in name
        and "." in name
        and not name.startswith(("cut", "more", "a-strange"))
    }
    captions["a-long.txt"] = "word " * 400
    captions["a-copy.txt"] = "picture number 3"
    report = report_of(write_files(root, {**captions, **files}))
    assert {kind: keys(report, kind) for kind in report.faults} == {
        "shard": ["cut.tar"],
        "corrupt": ["a-headless", "a-cut"],
        "unread": ["a-strange.heic"],
        "no-caption": ["a-latin", "a-silent"],
        "encoding": ["a-latin"],
        "blank": ["a-blank", "a-clear"],
        "duplicate": ["a-copy"],
        "tiny": ["a-small"],
        "long-caption": ["a-long"],
        "recaptioned": ["a-exact"],
        "cropped": ["a-wide"],
        "ignored": ["more.jsonl"],
    }
    said = {kind: found[0].text for kind, found in report.faults.items()}
    assert said["duplicate"] == "a-copy is 003"
    assert said["recaptioned"] == "a-exact is 004 byte by byte with another caption"
    assert said["blank"] == "a-blank shows nothing but the colour #102030"
    assert report.faults["blank"][1].text == "a-clear shows nothing but the colour #ffffff"
    assert said["long-caption"] == "a-long: about 501 tokens, 300 are read"
    assert said["tiny"] == "a-small: 30x30, enlarged 2.1 times for 64x64"
    assert (report.pictures, report.usable, report.verdict) == (19, 15, "FIX")
    assert set(report.blockers) == set(report.faults) - {"cropped", "ignored", "recaptioned"}
    assert report.sound == (*(f"{n:03d}" for n in range(8)), "a-exact", "a-wide")
    assert sorted(path.name for path in root.iterdir() if path.suffix == ".tar") == ["cut.tar"]


def test_files_that_nothing_reads_keep_a_set_from_go_unless_they_are_let_pass(tmp_path: Path) -> None:
    root = write_plain(tmp_path, 4)
    write_files(root, {f"i{n}.HEIC": b"x" for n in range(40)} | {"film.mov": b"x", "Makefile": b""})
    report = report_of(root)
    assert (report.verdict, report.blockers, report.count("unread")) == ("FIX", ("unread",), 42)
    assert report.sentence == "training would run, but put right: files of unknown types (42)."
    for ignore, verdict in ((("heic",), "FIX"), (("heic", "mov"), "FIX"), (("heic", "mov", "none"), "GO")):
        rules = CheckRules(buckets=SMALL.buckets, ignore=frozenset(ignore))
        assert report_of(root, rules).verdict == verdict


def _face(mouth: bool, hand: int = 0) -> Image.Image:
    """A flat face of 72 px, as emoji are: with a small mouth or none, or one hand of a clock."""
    image = Image.new("RGBA", (72, 72))
    draw = ImageDraw.Draw(image)
    draw.ellipse((2, 2, 70, 70), fill=(255, 204, 77, 255))
    if hand:
        draw.line((36, 36, 36 + (hand - 2) * 16, 60 - 8 * hand), fill=(40, 40, 40, 255), width=3)
        return image
    draw.ellipse((20, 24, 27, 34), fill=(102, 69, 0, 255))
    draw.ellipse((45, 24, 52, 34), fill=(102, 69, 0, 255))
    if mouth:
        draw.line((30, 52, 42, 52), fill=(102, 69, 0, 255), width=3)
    return image


def test_small_flat_pictures_that_differ_in_a_line_are_no_copies(tmp_path: Path) -> None:
    faces = {
        "a": _face(False),
        "b": _face(True),
        "c": _face(False, 1),
        "d": _face(False, 2),
        "e": _face(False, 3),
    }
    small = faces["b"].resize((54, 54), Image.Resampling.LANCZOS)
    white = Image.new("RGBA", (72, 72), "white")
    saved = Image.alpha_composite(white, faces["b"]).convert("RGB")
    files = {f"{name}.png": encoded(face) for name, face in faces.items()}
    files |= {"x.jpg": encoded(saved, "JPEG", quality=70), "y.png": encoded(small)}
    texts = {f"{name[0]}.txt": "a face" for name in files}
    report = report_of(write_files(tmp_path, files | texts))
    assert [fault.text for fault in report.faults["duplicate"]] == ["x is b", "y is b"]


def test_few_faults_are_let_pass_but_no_leak(tmp_path: Path) -> None:
    root = write_plain(tmp_path / "train", 20)
    (root / "000.txt").unlink()
    rules = {share: CheckRules(buckets=BucketRule(bases=(64,)), tolerance=share) for share in (0.04, 0.05)}
    assert report_of(root, rules[0.04]).verdict == "FIX"
    assert report_of(root, rules[0.05]).verdict == "GO"
    test = write_files(tmp_path / "test", {"t.jpg": jpeg(80, 80, 7), "t.txt": "x"})
    leaking = report_of(root, rules[0.05], against=test)
    assert (leaking.verdict, keys(leaking, "leak")) == ("FIX", ["007"])
    assert leaking.faults["leak"][0].text == f"007 is t of {test}"
    assert (
        report_of(root, rules[0.05], against=write_files(tmp_path / "b", {"t.png": png(seed=99)})).verdict
        == "GO"
    )


def test_less_than_half_usable_is_stop(tmp_path: Path) -> None:
    root = write_plain(tmp_path, 6)
    for number in range(3):
        (root / f"{number:03d}.txt").unlink()
    assert report_of(root).verdict == "FIX"
    (root / "005.png").write_bytes(b"broken")
    report = report_of(root)
    assert (report.verdict, report.usable, report.pictures) == ("STOP", 2, 6)
    assert report.sentence.startswith("only 2 of 6")


def test_no_caption_at_all_is_stop(tmp_path: Path) -> None:
    report = report_of(write_files(tmp_path, {"a.png": png()}))
    assert (report.verdict, report.buckets, report.captions.count) == ("STOP", {}, 0)


def test_the_cost_of_a_cache() -> None:
    cost = cache_cost([(64, 64), (32, 128)], [10, 1000], SHAPES.autoencoder, SHAPES.text)
    cells = 2 * 64 * 64 // SHAPES.autoencoder.ratio**2
    assert cost.latent_bytes == cells * SHAPES.autoencoder.latent_channels * 2
    assert cost.text_bytes == (10 + 300) * SHAPES.text["hidden_size"] * 2
    twice = cache_cost([(64, 64), (32, 128)] * 2, [10, 1000] * 2, SHAPES.autoencoder, SHAPES.text)
    assert twice.operations == pytest.approx(2 * cost.operations)
    assert cost.seconds(1e9) == pytest.approx(cost.operations / 0.5e9)


def test_examining_can_be_stopped(tmp_path: Path) -> None:
    import threading

    findings = examine(open_set(write_plain(tmp_path, 20)), workers=2)
    assert [next(findings).index for _ in range(3)] == [0, 1, 2]
    findings.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("examine")]
