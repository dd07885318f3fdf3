"""Pictures from a cold process, as a user pays for them: `python -m bench.cold [MODEL] [--size WxH] [--fast HOW]`.

MODEL is a folder, `toybox`, or a published size such as `sana-0.6b-1024`, for which a folder with random weights is
written to runs/bench first (7 GB). Prints the command's seconds, those of its stages, and the largest memory it held.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch

from sanakit.autoencoder.presets import LITE_1_1
from sanakit.benchmark.workload import random_autoencoder, random_text_encoder, random_transformer
from sanakit.pipeline.shapes import shapes_of
from sanakit.transformer import PRESETS
from sanakit.weights import ModelSpec, Schedule, resolve, write_folder

FOLDERS = Path("runs/bench")


def folder_of(name: str, lite: bool = False) -> str:
    """The folder of random weights of a published size, written if it is not there; another name as it is.

    lite: with the faster decoder.
    """
    if name not in PRESETS or name == "toybox":
        return name
    folder = FOLDERS / f"{name}{'-lite' if lite else ''}"
    if not (folder / "model_index.json").exists():
        print(f"writing random weights to {folder}", flush=True)
        write_random(name, folder, lite)
    return str(folder)


def write_random(name: str, folder: Path, lite: bool = False) -> None:
    """A model folder of a published size in bf16."""
    shapes, dtype = shapes_of(name), torch.bfloat16
    if lite:
        shapes = replace(shapes, autoencoder=LITE_1_1)
    sprint = shapes.transformer.guidance_embed
    spec = ModelSpec(
        folder=folder,
        transformer_source=folder / "transformer",
        kind="sprint" if sprint else "sana",
        transformer=shapes.transformer,
        autoencoder=shapes.autoencoder,
        schedule=Schedule(kind="scm") if sprint else Schedule(shift=3.0),
        text_config=dict(shapes.text),
    )
    write_folder(
        spec,
        transformer=random_transformer(shapes.transformer, dtype),
        autoencoder=random_autoencoder(shapes.autoencoder, dtype),
        text_encoder=random_text_encoder(shapes.text, dtype),
        tokenizer=resolve("toybox") / "tokenizer",
        dtype=dtype,
        force=True,
    )


def run(arguments: list[str]) -> tuple[float, float, str]:
    """Seconds, largest resident memory in GB and the last line of `sanakit generate` in a process of its own."""
    read, write = os.pipe()
    begun = time.perf_counter()
    program = Path(sys.executable).with_name("sanakit")
    child = os.posix_spawn(
        program, [str(program), "generate", *arguments], os.environ,
        file_actions=[(os.POSIX_SPAWN_DUP2, write, 1), (os.POSIX_SPAWN_DUP2, write, 2)],
    )  # fmt: skip
    os.close(write)
    with os.fdopen(read) as stream:
        told = stream.read().strip()
    _, status, usage = os.wait4(child, 0)
    if status:
        raise SystemExit(told)
    return time.perf_counter() - begun, usage.ru_maxrss * 1024 / 1e9, told.splitlines()[-1]


def main() -> None:
    """Draw twice: the second time the files are in the system's cache."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", nargs="?", default="toybox")
    parser.add_argument("--size")
    parser.add_argument("--steps", default="20")
    parser.add_argument("--fast", default="auto")
    options = parser.parse_args()
    arguments = ["a red cube left of a blue sphere on grass at sunset", "--model", folder_of(options.model)]
    arguments += ["--steps", options.steps, "--fast", options.fast, "--out", "out/cold.png"]
    arguments += ["--size", options.size] if options.size else []
    for _ in range(2):
        seconds, memory, told = run(arguments)
        print(f"{seconds:.2f} s, {memory:.2f} GB  ({re.sub(r' +', ' ', told)})", flush=True)


if __name__ == "__main__":
    main()
