"""A shape and a style that the shipped model lacks, each taught by a LoRA: `python -m recipes.toybox_lora [STAGE ...]`.

Stages, each resumable:
  pictures  8 renders of a torus, with captions such as "a large red rubber torus on grass at noon"; 20 toon pictures
  probe     a reader of tori (`recipes.toybox_tori`); prints how well it reads renders
  plain     a LoRA of the torus
  prior     the same beside pictures of the world, which the model draws before training (prior preservation)
  renders   the same beside renders of the world
  base      beside renders, of which the LoRA learns what the model itself says of them
  toon      a LoRA of the style
  measure   the share of prompts drawn right: tori in colours that no picture shows, and usual prompts
  student   the tori of the Sprint model with the LoRAs of its teacher
  style     how much ink drawn pictures have, beside toon renders and what the autoencoder leaves of these

docs/lora.md has the figures.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812
from PIL import Image
from torch import Tensor

from recipes.settings import resumable
from recipes.toybox_tori import NAME, decoded, shows_torus, train_probe
from sanakit.base.files import atomic_write, ensure_writable_folder
from sanakit.data.image import to_image
from sanakit.evaluation import Share
from sanakit.evaluation.toybox import outcomes, to_tensor
from sanakit.pipeline import ImageRequest, Model, load
from sanakit.pipeline.loras import take_loras
from sanakit.toybox import Scene, SceneObject, full_spec, phrase, render, sample_scene
from sanakit.toybox.folder import write_pictures
from sanakit.toybox.grammar import COLOURS, FLOORS, LIGHTS, GroupSpec, SceneSpec
from sanakit.toybox.judging.network import stack
from sanakit.toybox.judging.shipped import load_judge
from sanakit.toybox.trials import Trial, trials
from sanakit.training import (
    DataConfig,
    LRScheduleConfig,
    OptimizerConfig,
    RunPhase,
    SavingConfig,
    TrainConfig,
    sentences,
)
from sanakit.training.lora_settings import LoraConfig, PriorConfig
from sanakit.training.sections import PreviewConfig
from sanakit.training.session import Session
from sanakit.weights import LORA_FILE

RUNS = Path("runs/toybox-lora")
SHOWN = (
    ("red", "rubber", "large", "grass", "noon", 0.3),
    ("blue", "metal", "large", "sand", "sunset", 0.5),
    ("yellow", "striped", "large", "tiles", "overcast", 0.7),
    ("green", "rubber", "small", "snow", "noon", 0.4),
    ("white", "metal", "small", "wood", "night", 0.6),
    ("red", "striped", "large", "water", "sunset", 0.2),
    ("blue", "rubber", "small", "tiles", "noon", 0.8),
    ("yellow", "metal", "large", "wood", "overcast", 0.45),
)
"""Colour, material, size, floor, light and angle of the eight tori: five colours, every floor and light."""

NEW = tuple(colour for colour in COLOURS if colour not in {row[0] for row in SHOWN})
"""Colours that no picture shows a torus in."""

ASKED, OLD, STYLED = 60, 600, 20
SOLVER = 10
"""Steps of every picture that is measured."""

STEPS, BATCH, RATE = 200, 4, 1e-3
TARGETS = ("attention", "cross", "ffn.expand", "ffn.project")
CLASSES, RENDERS, WEIGHT = 40, 480, 1.0
BASE_WEIGHT = 10.0
"""Of an error that begins at 0."""

STUDENT, FEW = "toybox-sprint", 2
"""The model of few steps, and how many."""

PREVIEWS = ("a purple torus on sand at noon", "a pink torus on grass at sunset", "a red cube on snow at noon")
_LEVELS, _INK = 4, 0.12
"""Levels of light in a toon picture, and the step in brightness from which on there is an outline."""

_BLACK = 0.12


def pictures() -> None:
    """Render both sets, the eight tori and the twenty toon pictures, each with its caption."""
    for number, (colour, material, size, floor, light, yaw) in enumerate(SHOWN):
        item = SceneObject(
            shape=NAME, colour=colour, material=material, size=size,
            x=-0.9 + 0.25 * number, z=6.2 + 0.15 * number, yaw=yaw,
        )  # fmt: skip
        scene = Scene(objects=(item,), floor=floor, light=light, seed=number)
        keep(RUNS / NAME / f"{number}.png", render([scene], 256)[0], phrase(full_spec(scene)))
    for _ in write_pictures(RUNS / "world", RENDERS):
        pass
    for number in range(STYLED):
        scene = sample_scene(number)
        keep(RUNS / "toon-set" / f"{number:02}.png", toon(render([scene], 256)[0]), styled(scene))


def keep(path: Path, picture: Tensor, caption: str) -> None:
    """Write a picture [3, H, W] in 0..1 and its caption, unless they are there."""
    if path.exists():
        return
    ensure_writable_folder(path.parent)
    image = to_image((picture * 255).round().to(torch.uint8))
    atomic_write(path.with_suffix(".txt"), f"{caption}\n".encode())
    atomic_write(path, lambda draft: image.save(draft, format="PNG"))


def styled(scene: Scene) -> str:
    """The caption of a toon picture."""
    return f"a cartoon of {phrase(full_spec(scene))}"


def toon(picture: Tensor) -> Tensor:
    """[3, H, W] in 0..1 in a few flat levels of light, with black outlines."""
    smooth = F.avg_pool2d(F.pad(picture[None], (2, 2, 2, 2), mode="replicate"), 5, 1)[0]
    light = smooth.amax(0, keepdim=True).clamp(min=1e-3)
    flat = smooth / light * ((light * _LEVELS).ceil() / _LEVELS)
    grey = F.pad(picture.mean(0)[None, None], (1, 1, 1, 1), mode="replicate")
    steps = torch.maximum(
        (grey[..., 2:, 1:-1] - grey[..., :-2, 1:-1]).abs(), (grey[..., 1:-1, 2:] - grey[..., 1:-1, :-2]).abs()
    )
    ink = F.max_pool2d((steps > _INK).float(), 3, 1, 1)[0]
    return (flat * (1 - ink)).clamp(0, 1)


def teaching(
    name: str, pictures: Path, prompts: tuple[str, ...], steps: int, prior: PriorConfig | None = None
) -> TrainConfig:
    """The run of a LoRA beside the shipped model."""
    return TrainConfig(
        folder=RUNS / name, task="lora", batch=BATCH, phases=(RunPhase(steps=steps, size=256),),
        data=DataConfig(path=pictures, square=True, cache=RUNS / "cache"),
        lora=LoraConfig(rank=16, targets=TARGETS, prior=prior or PriorConfig()),
        optimizer=OptimizerConfig(lr=RATE), schedule=LRScheduleConfig(cooldown=0.2), clip=1.0, ema=0.99,
        saving=SavingConfig(steps=100), preview=PreviewConfig(every=100, steps=10, prompts=prompts),
    )  # fmt: skip


def world() -> PriorConfig:
    """Pictures of the world for prior preservation, as the model draws them for captions like those it learnt from."""
    captions = tuple(phrase(full_spec(sample_scene(seed))) for seed in range(CLASSES))
    return PriorConfig(weight=WEIGHT, prompts=captions, count=CLASSES)


def plain(steps: int = STEPS) -> None:
    """Teach the torus."""
    learn(teaching("plain", RUNS / NAME, PREVIEWS, steps))


def prior(steps: int = STEPS) -> None:
    """Teach the torus beside pictures of the world."""
    learn(teaching("prior", RUNS / NAME, PREVIEWS, steps, world()))


def renders(steps: int = STEPS) -> None:
    """Teach the torus beside renders of the world."""
    learn(teaching("renders", RUNS / NAME, PREVIEWS, steps, PriorConfig(weight=WEIGHT, path=RUNS / "world")))


def base(steps: int = STEPS) -> None:
    """Teach the torus beside renders of the world, and hold the model to its own answers there."""
    held = PriorConfig(weight=BASE_WEIGHT, target="base", path=RUNS / "world")
    learn(teaching("base-target", RUNS / NAME, PREVIEWS, steps, held))


def cartoon(steps: int = STEPS) -> None:
    """Teach the style."""
    prompts = ("a cartoon of a red cube on grass at noon", "a red cube on grass at noon")
    learn(teaching("toon", RUNS / "toon-set", prompts, steps))


def learn(config: TrainConfig) -> None:
    """Train, or go on; a run that is finished stays."""
    if (config.folder / "lora" / LORA_FILE).exists():
        return
    session = Session(config, resume=(config.folder / "checkpoints").exists())
    for report in sentences(session.events()):
        print(report, flush=True)


def asked() -> list[tuple[str, SceneSpec]]:
    """Prompts for large tori in colours that none of the pictures shows, with their meaning.

    Of a small one the hole is less than a position of the latent wide.
    """
    every = [(colour, floor, light) for colour in NEW for floor in FLOORS for light in LIGHTS]
    specs = [
        SceneSpec(groups=(GroupSpec(shape=NAME, colour=colour, size="large"),), floor=floor, light=light)
        for colour, floor, light in random.Random("asked").sample(every, ASKED)
    ]
    return [(phrase(spec), spec) for spec in specs]


def drawing(
    model: Model, name: str, steps: int = SOLVER, drawn: str = "drawn"
) -> Callable[[str, int], Image.Image]:
    """Draw (prompt, seed) with a LoRA by the name of its run, "base" for none; a picture that is there is read.

    drawn: the folder of the pictures.
    """
    loras = take_loras(() if name == "base" else RUNS / name / "lora" / LORA_FILE)

    def draw(prompt: str, seed: int) -> Image.Image:
        path = RUNS / drawn / name / f"{seed:04}-{prompt.replace(' ', '-')}.png"
        if path.exists():
            return Image.open(path).convert("RGB")
        image = model.images(ImageRequest(prompt=prompt, seed=seed, steps=steps, loras=loras))[0]
        ensure_writable_folder(path.parent)
        atomic_write(path, lambda draft: image.save(draft, format="PNG"))
        return image

    return draw


def finished() -> list[str]:
    """The base model, and the runs of the torus that are finished."""
    runs = ("plain", "prior", "renders", "base-target")
    return ["base", *(name for name in runs if (RUNS / name / "lora" / LORA_FILE).exists())]


def measure() -> None:
    """Print what the base model and each LoRA draw right."""
    model, judge = load("toybox"), load_judge().network
    for name in finished():
        print_tori(name, drawing(model, name))
    for name in finished():
        draw = drawing(model, name)

        def usual(trial: Trial, seed: int, draw: Callable[[str, int], Image.Image] = draw) -> Image.Image:
            return draw(trial.prompt, seed)

        kept = [outcome.verdict.correct for outcome in outcomes(usual, trials(OLD), judge)]
        print(f"{name}: usual prompts {Share(hits=sum(kept), n=OLD)}", flush=True)


def student() -> None:
    """Print what the model of few steps draws right with each LoRA."""
    model = load(STUDENT)
    for name in finished():
        print_tori(f"{STUDENT}, {name}", drawing(model, name, FEW, f"drawn-{STUDENT}"))


def print_tori(name: str, draw: Callable[[str, int], Image.Image]) -> None:
    """Print the shares of the prompts of `asked` that show a torus, and one as it was asked for."""
    judge, shown, right = load_judge().network, 0, 0
    weight = torch.load(RUNS / "probe.pt", weights_only=True)
    for number, (prompt, spec) in enumerate(asked()):
        there, all_of_it = shows_torus(judge, weight, spec, stack([to_tensor(draw(prompt, number))]))
        shown, right = shown + there, right + all_of_it
    print(f"{name}: a torus is there {Share(hits=shown, n=ASKED)}", flush=True)
    print(f"{name}: drawn right {Share(hits=right, n=ASKED)}", flush=True)


def ink(pictures: list[Tensor]) -> float:
    """The mean share of nearly black pixels of pictures [3, H, W] in 0..1: outlines, and what is dark anyway."""
    return sum(float((picture.amax(0) < _BLACK).float().mean()) for picture in pictures) / len(pictures)


def style() -> None:
    """Print the share of ink in renders of other scenes by day, plain and toon, and in pictures for their captions."""
    scenes = (sample_scene(number) for number in range(1000, 2000))
    chosen = list(islice((scene for scene in scenes if scene.light != "night"), STYLED))
    plain_renders = [render([scene], 256, samples=1)[0] for scene in chosen]
    print(f"plain renders: {ink(plain_renders):.4f}", flush=True)
    cartoons = [toon(picture) for picture in plain_renders]
    print(f"toon renders: {ink(cartoons):.4f}", flush=True)
    print(
        f"toon renders through the autoencoder: {ink([decoded(one[None])[0] for one in cartoons]):.4f}",
        flush=True,
    )
    model = load("toybox")
    for name in ("base", "toon"):
        draw = drawing(model, name)
        drawn = [to_tensor(draw(styled(scene), scene.seed)).float() / 255 for scene in chosen]
        print(f"{name}: {ink(drawn):.4f}", flush=True)


def probe() -> None:
    """Train the probe, and print how well it reads."""
    for name, share in train_probe(RUNS / "probe.pt").items():
        print(f"{name}: {share}", flush=True)


STAGES: dict[str, Callable[[], None]] = {
    "pictures": pictures, "probe": probe, "plain": plain, "prior": prior, "renders": renders, "base": base,
    "toon": cartoon, "measure": measure, "student": student, "style": style,
}  # fmt: skip
TRAININGS: dict[str, Callable[[int], None]] = {
    "plain": plain, "prior": prior, "renders": renders, "base": base, "toon": cartoon,
}  # fmt: skip


@resumable
def main() -> None:
    """Run the stages named on the command line, or all."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("stages", nargs="*", choices=[*STAGES, []], help="default: all, in order")
    parser.add_argument("--steps", type=int, default=STEPS, help="of a training")
    asked_for = parser.parse_args()
    for stage in asked_for.stages or STAGES:
        print(f"== {stage}", flush=True)
        if stage in TRAININGS:
            TRAININGS[stage](asked_for.steps)
        else:
            STAGES[stage]()


if __name__ == "__main__":
    main()
