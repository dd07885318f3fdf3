"""Train all of Toybox on one GPU within minutes: `python -m recipes.toybox_gpu [STAGE ...]`, in runs/toybox-gpu.

Stages, in their order:
  sample        numbers of training scenes, with every core; the first are those of `python -m recipes.toybox render`
  numbers       what the renderer reads of those that the autoencoder learns from
  captions      captions of all scenes as tokens, and what the cells of their latents show
  autoencoder   DC-AE on rendered pictures, from the shipped weights; the encoder as well, so latents change
  decoder       its decoder alone, from the run's weights or the shipped ones; only if it is named
  latents       the pictures through the new encoder
  flow          text encoder and transformer together, from the shipped weights, to `model`
  sprint        Toybox-Sprint follows that model and is distilled further, to `sprint`; as it was
                after a minute, to `sprint-1`, and so on
  measure       how well the autoencoder gives scenes back that no stage has seen
  ship          the run's model to src/sanakit/toybox/model; only if it is named

Data never leave the card: scenes are rendered there, and captions are drawn beforehand. A stage that trains ends after
--seconds, whatever the card. With --wait a stage compiles first, then waits for the files of the one before it, which
another process makes: start `latents`, `flow` and `sprint` so, and the card is never idle. Run `python -m bench.gpu`
before: what trains with a wrong kernel learns nothing.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import torch

from recipes.gpu_autoencoder import encode_latents, measure, train_autoencoder, train_decoder
from recipes.gpu_flow import ship, train_flow
from recipes.gpu_run import FOLDER, SCENES, GpuRun, read_captions, read_numbers, sample, say
from recipes.gpu_sprint import train_sprint

STAGES: dict[str, Callable[[GpuRun], None]] = {
    "sample": sample,
    "numbers": read_numbers,
    "captions": read_captions,
    "autoencoder": train_autoencoder,
    "decoder": train_decoder,
    "latents": encode_latents,
    "flow": train_flow,
    "sprint": train_sprint,
    "measure": measure,
    "ship": ship,
}
USUAL = [stage for stage in STAGES if stage not in ("decoder", "ship")]


def main() -> None:
    """Run the stages named on the command line, or the usual ones."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("stages", nargs="*", choices=[*STAGES, []], help="default: all but decoder and ship")
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--seconds", type=float, default=120.0, help="of a stage that trains")
    parser.add_argument("--scenes", type=int, default=SCENES)
    parser.add_argument("--batch", type=int, help="of a stage that trains; default: its own")
    parser.add_argument("--lr", type=float, help="learning rate at its height; default: each stage its own")
    parser.add_argument(
        "--share", type=float, default=1.0, help="of the change of the cross-attentions that ships"
    )
    parser.add_argument("--wait", action="store_true", help="for the files of the stage before")
    given = parser.parse_args()
    stages = given.stages or USUAL
    run = GpuRun(**{name: value for name, value in vars(given).items() if name != "stages"})
    run.folder.mkdir(parents=True, exist_ok=True)
    torch.set_float32_matmul_precision("high")
    for stage in stages:
        say(f"== {stage}")
        STAGES[stage](run)


if __name__ == "__main__":
    main()
