"""Train the judge that ships with sanakit: `python -m recipes.toybox_judge [STAGE ...]`.

Needs the rendered scenes of `recipes.toybox`, and its autoencoder. Stages, each resumable:
  render    scenes with the combinations that the model must not see, so that the judge knows them
  decoded   pictures through the autoencoder, as one of the blemishes that the judge learns to see through
  train     the judge on rendered scenes, with noise, blur and those pictures
  measure   its accuracy on held-out scenes, as rendered and through the autoencoder
  ship      its averaged weights to src/sanakit/toybox/judging/judge.safetensors
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from recipes.settings import fast_autocast, recipe_trainer, resumable, run_stages, run_training, settings
from recipes.toybox import pixels_of, render_scenes, trained_autoencoder
from recipes.toybox_model import DEVICE
from recipes.toybox_shards import RUNS, SIZE, SceneShards
from sanakit.base.files import atomic_write
from sanakit.base.seeds import batch_indices
from sanakit.evaluation import Share
from sanakit.toybox import Scene
from sanakit.toybox.judging import Judge, Maps, Targets, read, targets_of
from sanakit.toybox.judging.reading import accuracies
from sanakit.toybox.judging.shipped import STEM
from sanakit.training import TrainConfig
from sanakit.weights import save_weights

WEIGHTS = Path("src/sanakit/toybox/judging")
SCENES = (RUNS / "train", RUNS / "unseen")  # one half of every batch each
UNSEEN = 6000
DECODED = 3000  # of each
BATCH = 32
CONFIG = settings(
    RUNS / "judge", 6_000, size=SIZE, batch=BATCH, lr=1.5e-3, weight_decay=0.02, warmup=200, cooldown=0.5, ema=0.998,
    minutes=3, report=100,
)  # fmt: skip
FOCAL = 2.0


def render() -> None:
    """Render scenes of the combinations held out of the model's training: other ones than the 500 to measure on."""
    render_scenes(SCENES[1].name, UNSEEN, "held_out", seed=2)


def decode() -> None:
    """Write runs/toybox/decoded-{train,unseen}.pt."""
    for folder in SCENES:
        if not decoded_file(folder).exists():
            decode_folder(folder)


def decoded_file(folder: Path) -> Path:
    """Where the pictures of a folder lie that went through the autoencoder."""
    return RUNS / f"decoded-{folder.name}.pt"


@torch.no_grad()
def decode_folder(folder: Path) -> None:
    """The first pictures of a folder through the autoencoder."""
    pictures = through_autoencoder(SceneShards(folder), DECODED, torch.compile(trained_autoencoder()))
    atomic_write(decoded_file(folder), lambda path: torch.save(pictures, path))


@torch.no_grad()
def through_autoencoder(shards: SceneShards, count: int, through: Callable[[Tensor], Tensor]) -> Tensor:
    """The first pictures of a set through an autoencoder, uint8 [n, 3, H, W]."""
    parts = []
    for start in range(0, count, 10):
        with fast_autocast(DEVICE):
            indices = list(range(start, min(start + 10, count)))
            found = through(pixels_of(shards, indices).to(DEVICE)).float().cpu()
        parts.append(((found.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).contiguous())
        if start % 500 == 490:
            print(f"decoded {start + 10}/{count}", flush=True)
    return torch.cat(parts)


def blemished(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """[B, 3, H, W] in 0..1 with noise, blur and another brightness, each on some of them."""
    size = (len(pictures), 1, 1, 1)
    chance, strength = (torch.rand((3, *size), generator=generator) for _ in range(2))
    blurred = F.avg_pool2d(pictures, 3, 1, 1, count_include_pad=False)
    blurred = torch.where(strength[0] > 0.5, F.avg_pool2d(blurred, 5, 1, 2, count_include_pad=False), blurred)
    pictures = torch.where(chance[0] < 0.3, blurred, pictures)
    noise = torch.randn(pictures.shape, generator=generator)
    pictures = torch.where(chance[1] < 0.4, pictures + noise * 0.08 * strength[1], pictures)
    return torch.where(chance[2] < 0.4, pictures * (0.85 + 0.3 * strength[2]), pictures).clamp(0, 1)


def loss_of(maps: Maps, targets: Targets) -> dict[str, Tensor]:
    """Focal loss for presence (arXiv 1904.07850, equation 1), cross-entropy for words, L1 for place and depth."""
    count = targets.peak.sum()
    hit = maps.presence.float().sigmoid().clamp(1e-4, 1 - 1e-4)
    found = -((1 - hit) ** FOCAL * hit.log())[targets.peak].sum()
    empty = -((1 - targets.heat) ** 4 * hit**FOCAL * (1 - hit).log())[~targets.peak].sum()
    parts = {"presence": (found + empty) / count}
    for name, logits in maps.words.items():
        at = logits.float().movedim(1, -1)[targets.peak]
        parts[name] = F.cross_entropy(at, targets.words[name][targets.peak], label_smoothing=0.02)
    middle = (maps.offset.float() - targets.offset).abs().sum(1)[targets.peak].mean()
    depth = (maps.depth.float() - targets.depth).abs()[targets.peak].mean()
    place = [F.cross_entropy(maps.place[name].float(), targets.place[name]) for name in maps.place]
    parts |= {"middle": middle, "depth": depth, "place": torch.stack(place).sum()}
    return {"loss": torch.stack(list(parts.values())).sum(), **parts}


def train() -> None:
    """Train the judge."""
    decoded = [torch.load(decoded_file(folder), weights_only=True, mmap=True) for folder in SCENES]
    train_judge(CONFIG, [SceneShards(folder) for folder in SCENES], decoded, order=3)


def train_judge(
    config: TrainConfig, shards: Sequence[SceneShards], decoded: Sequence[Tensor], order: int, compiled: bool = True
) -> None:  # fmt: skip
    """Train a judge on two sets of scenes by halves.

    decoded: each set's first pictures through the autoencoder. order: the seed of the order; that of the weights is the
    config's. compiled: worth its minute in long runs.
    """
    torch.manual_seed(config.seed)
    model = Judge().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    forward = torch.compile(model) if compiled else model

    def picture(place: int, drawn: int) -> tuple[Tensor, Scene]:
        # Half of a batch shows unseen combinations; half of each half went through the autoencoder, as drawn ones do.
        source, through = place % 2, place % 4 >= 2
        index = drawn % (len(decoded[source]) if through else len(shards[source]))
        image = decoded[source][index] if through else shards[source].image(index)
        return image, shards[source].scene(index)

    def batches(step: int) -> tuple[Tensor, Targets]:
        drawn = batch_indices(step, config.batch, len(shards[0]), seed=order)
        pictures, scenes = zip(*(picture(place, index) for place, index in enumerate(drawn)), strict=True)
        flipped = step % 2 == 1
        stacked = torch.stack(pictures).float() / 255
        stacked = stacked.flip(-1) if flipped else stacked
        return stacked.contiguous(memory_format=torch.channels_last), targets_of(list(scenes), flipped)

    def loss(batch: tuple[Tensor, Targets], generator: torch.Generator) -> dict[str, Tensor]:
        return loss_of(forward(blemished(batch[0], generator)), batch[1])

    run_training(model, config, loss, batches)


def trained(config: TrainConfig = CONFIG) -> Judge:
    """The judge of a run with its averaged weights."""
    model = Judge()
    recipe_trainer(model, config).ema.copy_to(model)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model.eval()


def measure() -> None:
    """Print how often the judge is right about held-out scenes, per attribute, with 95 % intervals, and ship that."""
    shards, model = SceneShards(RUNS / "held"), trained()
    told = {name: accuracy(model, shards, through) for name, through in conditions().items()}
    atomic_write(WEIGHTS / f"{STEM}.json", (json.dumps(told, indent=1) + "\n").encode())


def conditions() -> dict[str, Callable[[Tensor], Tensor]]:
    """What happens to pixels [B, 3, H, W] in -1..1 before the judge is measured."""
    return {"as rendered": lambda pixels: pixels, "through the autoencoder": trained_autoencoder()}


@torch.no_grad()
def accuracy(
    model: Judge, shards: SceneShards, through: Callable[[Tensor], Tensor], count: int | None = None
) -> dict[str, tuple[int, int]]:
    """attribute -> (right, of how many) on the first scenes of a set; printed with 95 % intervals."""
    scenes, readings = [], []
    numbers = range(len(shards) if count is None else count)
    for start in range(0, len(numbers), 10):
        indices = list(numbers[start : start + 10])
        pixels = through(pixels_of(shards, indices).to(DEVICE)).clamp(-1, 1).cpu()
        scenes += [shards.scene(index) for index in indices]
        readings += [read(model, picture[None])[0][0] for picture in (pixels + 1) / 2]
    found = accuracies(scenes, readings)
    print(f"on {len(scenes)} held-out scenes:")
    for attribute, (hits, n) in found.items():
        print(f"  {attribute:<10} {Share(hits=hits, n=n)}")
    return found


def ship() -> None:
    """Write the averaged weights and the features of held-out renders, in bf16."""
    write_judge(trained(), SceneShards(RUNS / "held"), WEIGHTS)


@torch.no_grad()
def write_judge(model: Judge, held: SceneShards, folder: Path) -> None:
    """Write a judge's weights and its features of held-out renders, in bf16, as `load_judge` reads them."""
    features = [read(model, (pixels_of(held, [i]) + 1) / 2)[1] for i in range(len(held))]
    state = {f"network.{name}": tensor for name, tensor in model.state_dict().items()}
    state["features"] = torch.cat(features)
    tensors = {name: tensor.to(torch.bfloat16).contiguous() for name, tensor in state.items()}
    save_weights(folder, tensors, STEM)


STAGES: dict[str, Callable[[], None]] = {
    "render": render,
    "decoded": decode,
    "train": train,
    "measure": measure,
    "ship": ship,
}


@resumable
def main() -> None:
    """Run the stages named on the command line, or all."""
    run_stages(__doc__, STAGES)


if __name__ == "__main__":
    main()
