"""What sanakit has always drawn, learnt and cached: numbers of the first version that stated them, on any chip.

Pictures and losses are float32 and compared with bounds, as sums differ from chip to chip; keys of a cache are exact.
`python -m tests.cli.test_golden` writes the numbers anew: only after a change that was meant to change them.
"""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open
from typer.testing import CliRunner

from sanakit.cli import app

GOLDEN = Path(__file__).parents[1] / "golden" / "house.json"
PROMPT = "a large red metal sphere left of a small blue rubber cube on grass at sunset"
PICTURES = {
    **{solver: ("--solver", solver) for solver in ("dpm1", "dpm2", "dpm3", "euler")},
    "guided": ("--cfg-interval", "0.2,0.9", "--negative", "snow", "--pag", "2"),
    "no-instruction": ("--no-chi", "--guidance", "1", "--seed", "7"),
}
LEVELS = 1.5
"""Of 255, for the mean of 8 x 8 pixels: another chip moved them by less than 0.1."""
STEADY = 4
"""Steps whose losses are compared: another chip moved these by 2e-5, and the next, of a fresh network, by 2e-3."""
TRAIN = """
folder: run
batch: 2
dtype: fp32
phases: [{steps: 8, size: 64}]
data: {path: set, square: true, cache: cache}
model: {start: scratch, changes: {depth: 2, width: 64, heads: 2, cross_heads: 2}}
optimizer: {name: came, lr: 1.0e-3}
schedule: {warmup: 2}
clip: 0.1
report: 1
"""


def sanakit(*arguments: object) -> None:
    """Run a command in this process."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output


def drawn(folder: Path, options: tuple[str, ...]) -> list[Any]:
    """The means of 8 x 8 pixels of a Toybox picture: [8, 8, 3], rounded."""
    fixed = ("--device", "cpu", "--dtype", "fp32", "--fast", "off", "--size", "64x64", "--steps", 4)
    sanakit("generate", PROMPT, *fixed, *options, "--out", folder / "x.png")
    with Image.open(folder / "x.png") as image:
        pixels = np.asarray(image, dtype=np.float64)
    means: list[Any] = pixels.reshape(8, 8, 8, 8, 3).mean(axis=(1, 3)).round(2).tolist()
    return means


def learnt(folder: Path) -> dict[str, Any]:
    """Losses of a small run on pictures of plain numbers, and the keys under which it cached them."""
    (folder / "set").mkdir()
    ramp = np.add.outer(np.arange(64), np.arange(64))
    for index, caption in enumerate(("a red cube", "two blue spheres", "a green cone on snow", "a cube")):
        pixels = np.stack([ramp * (index + 1), ramp[::-1], np.full_like(ramp, 60 * index)], -1) % 256
        (folder / f"set/{index}.ppm").write_bytes(b"P6 64 64 255\n" + pixels.astype(np.uint8).tobytes())
        (folder / f"set/{index}.txt").write_text(caption, encoding="utf-8")
    (folder / "run.yaml").write_text(TRAIN, encoding="utf-8")
    sanakit("train", "run.yaml", "--quiet")
    lines = [json.loads(line) for line in (folder / "run/log.jsonl").read_text().splitlines()]
    keys = sorted(key for shard in (folder / "cache").rglob("*.safetensors") for key in _keys(shard))
    return {"losses": [line["loss"] for line in lines if "loss" in line], "keys": keys}


def _keys(shard: Path) -> list[str]:
    with safe_open(shard, "np") as file:
        return list(file.keys())


@pytest.mark.parametrize("name", PICTURES)
def test_pictures_stay_what_they_were(name: str, tmp_path: Path) -> None:
    wanted = json.loads(GOLDEN.read_text())["pictures"][name]
    assert np.abs(np.array(drawn(tmp_path, PICTURES[name])) - wanted).max() < LEVELS


def test_losses_and_cache_keys_stay_what_they_were(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    wanted, found = json.loads(GOLDEN.read_text())["training"], learnt(tmp_path)
    assert found["keys"] == wanted["keys"]
    np.testing.assert_allclose(found["losses"][:STEADY], wanted["losses"][:STEADY], rtol=1e-3)


def main() -> None:
    """Write the numbers."""
    patch = pytest.MonkeyPatch()
    with TemporaryDirectory() as home:
        patch.chdir(home)
        found = {
            "pictures": {name: drawn(Path(home), options) for name, options in PICTURES.items()},
            "training": learnt(Path(home)),
        }
        patch.undo()
    GOLDEN.write_text(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
