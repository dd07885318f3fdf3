"""What `recipes/toybox.py` trains beside the autoencoder: a small Gemma-2 and a small SANA transformer, joined."""

from __future__ import annotations

import random
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TypeVar

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from transformers import Gemma2Model, PreTrainedTokenizerBase

from recipes.toybox_shards import SceneShards
from sanakit.base.text_states import TextStates
from sanakit.layers.embed import TextEmbed
from sanakit.text import (
    build_gemma,
    extend_tokenizer,
    load_tokenizer,
    save_tokenizer,
    small_gemma,
    train_tokenizer,
)
from sanakit.toybox.captions import caption, full_spec, phrase
from sanakit.toybox.grammar import GroupSpec, Scene, SceneSpec
from sanakit.toybox.parsing import parse
from sanakit.toybox.wording import trained_wording
from sanakit.toybox.words import SHAPE_WAYS, all_words
from sanakit.transformer import PRESETS, SanaTransformer, initialise

Network = TypeVar("Network", bound=nn.Module)

MODEL = Path("src/sanakit/toybox/model")
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
TOKENS = 40  # as many as the longest of 200,000 captions has
VOCABULARY = 512
TRANSFORMER = PRESETS["toybox"]
PLACES = ("left", "right", "front", "behind")
UNPLACED = -100
_SECOND = {"left of": "right", "right of": "left", "in front of": "behind", "behind": "front"}


def text_config(vocabulary: int) -> dict[str, object]:
    """The Gemma-2 architecture at 1.1 M parameters."""
    return small_gemma(
        vocab=vocabulary, width=TRANSFORMER.text_width, layers=4, heads=5, kv_heads=5, head_dim=32, ffn=320
    )


def build_tokenizer(folder: Path, shards: SceneShards) -> PreTrainedTokenizerBase:
    """The tokenizer in `folder`, trained on captions where there is none yet; it reads every word of captions whole."""
    if not (folder / "tokenizer.json").exists():
        lines = [caption(shards.scene(i), random.Random(i)) for i in range(min(len(shards), 8000))]
        save_tokenizer(extend_tokenizer(train_tokenizer(lines, VOCABULARY), sorted(all_words())), folder)
    return load_tokenizer(folder)


@dataclass(frozen=True)
class Captions:
    """Tokens of a batch, and where its captions say that their second thing stands.

    ids [B, L]; mask [B, L]; spot [B], the token that names the second thing; place [B], number of its word in `PLACES`,
    or `UNPLACED` where nothing is said. words [4]: the tokens of `PLACES`.
    """

    ids: Tensor
    mask: Tensor
    spot: Tensor
    place: Tensor
    words: Tensor

    def to(self, device: torch.device) -> Captions:
        """The same on a device."""
        return Captions(*(getattr(self, field.name).to(device) for field in fields(self)))


def draw_lines(
    shards: SceneShards, indices: list[int], step: int, dropout: float, uneven: float = 0.0
) -> list[str]:
    """One caption per scene, drawn anew for each step. Dropped captions are empty.

    uneven: share of the scenes with two shapes whose caption is `uneven_caption`.
    """
    lines = []
    for index in indices:
        rng, scene = random.Random(step * 1_000_003 + index), shards.scene(index)
        dropped, told = rng.random() < dropout, caption
        if uneven and shows_two(scene) and rng.random() < uneven:
            told = uneven_caption
        lines.append("" if dropped else told(scene, rng))
    return lines


def shows_two(scene: Scene) -> bool:
    """Whether a scene shows two objects of different shapes."""
    return len(scene.objects) == 2 and scene.objects[0].shape != scene.objects[1].shape


def uneven_caption(scene: Scene, draw: random.Random) -> str:
    """One thing with colour and material, the other by its shape alone: "a red striped cube and a sphere".

    Captions as they come say that of one scene of two things in a hundred.
    """
    first, second = draw.sample([replace(group, size=None) for group in full_spec(scene).groups], 2)
    place = {"floor": scene.floor, "light": scene.light} if draw.random() < 0.5 else {}
    spec = SceneSpec(groups=(first, GroupSpec(shape=second.shape)), **place)
    return phrase(spec) if draw.random() < 0.5 else trained_wording(spec, draw)


def read_captions(tokenizer: PreTrainedTokenizerBase, lines: list[str]) -> Captions:
    """Captions as tokens, with the places that they name."""
    tokens = tokenizer(lines, padding="max_length", truncation=True, max_length=TOKENS, return_tensors="pt")
    shapes = [way for ways in SHAPE_WAYS.values() for way in ways]
    nouns = torch.tensor([tokenizer(shape)["input_ids"][-1] for shape in shapes])
    named = torch.isin(tokens["input_ids"], nouns)  # [B, L]
    spot = torch.where(named, torch.arange(TOKENS), 0).amax(dim=1)
    return Captions(
        ids=tokens["input_ids"],
        mask=tokens["attention_mask"].bool(),
        spot=spot,
        place=torch.tensor([_place(line) for line in lines]),
        words=torch.tensor([tokenizer(word)["input_ids"][-1] for word in PLACES]),
    )


def _place(line: str) -> int:
    """Where the second thing of a caption stands, seen from the first."""
    relation = parse(line).relation if line else None
    return PLACES.index(_SECOND[relation]) if relation in _SECOND else UNPLACED


def spread_text(encoder: nn.Module, embed: TextEmbed) -> None:
    """Starts a text path that is trained with the transformer, in place.

    The published starts (std 0.02 throughout, norm 0.01) are made for Gemma-2's width and for its large, frozen states.
    Here they leave states of 0.05 before the norm: one step of Adam adds as much to all of them alike, the norm
    squeezes out what tells prompts apart, and the transformer learns to ignore its text.
    """
    for module in [*encoder.modules(), embed.input, embed.output]:
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=module.weight.shape[1] ** -0.5)
    nn.init.ones_(embed.norm.weight)


def fresh_networks(vocabulary: int) -> TextToVelocity:
    """Both networks with fresh weights."""
    text, transformer = build_gemma(text_config(vocabulary), device="cpu"), SanaTransformer(TRANSFORMER)
    spread_text(text, initialise(transformer).text)
    return TextToVelocity(text, transformer)


class TextToVelocity(nn.Module):
    """Captions and noisy latents in, velocity out: both networks as one, for joint training."""

    def __init__(self, text: Gemma2Model, transformer: SanaTransformer) -> None:
        super().__init__()
        self.text = text
        self.transformer = transformer

    def forward(self, latent: Tensor, time: Tensor, captions: Captions) -> tuple[Tensor, Tensor]:
        """latent [B, C, h, w], time [B] -> velocity [B, C, h, w], and the loss of `placing`."""
        states = read_states(self.text, captions)
        velocity: Tensor = self.transformer(latent, time, TextStates(states, captions.mask))
        return velocity, placing(states, captions, self.text.embed_tokens.weight)


def read_states(text: Gemma2Model, captions: Captions) -> Tensor:
    """The states of captions, [B, L, C].

    The library would make the mask [B, 1, L, L] with constants from the CPU, which a CUDA graph can't hold.
    """
    length, dtype = captions.mask.shape[1], text.embed_tokens.weight.dtype
    at = torch.arange(length, device=captions.mask.device)
    seen = (at <= at[:, None]) & captions.mask[:, None, None]
    mask = torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill(~seen, torch.finfo(dtype).min)
    # No caption is longer than the window of the sliding attention.
    masks = {"full_attention": mask, "sliding_attention": mask}
    states: Tensor = text(input_ids=captions.ids, attention_mask=masks, use_cache=False).last_hidden_state
    return states


def placing(states: Tensor, captions: Captions, table: Tensor) -> Tensor:
    """How badly the state of a caption's second thing tells where it stands: cross-entropy over `PLACES`.

    A text encoder that learns from the flow alone forgets what the flow does not use yet: ours merged "left" and
    "right" before the transformer knew one side from the other, and then neither could learn from the other.

    Args:
        states: [B, L, C].
        captions: of the states.
        table: [V, C], the embeddings; a state tells a word by its product with the word's row.
    """
    named = states.gather(1, captions.spot[:, None, None].expand(-1, 1, states.shape[-1]))[:, 0]  # [B, C]
    told = (named @ table[captions.words].T).float()  # [B, 4]
    total = F.cross_entropy(told, captions.place, ignore_index=UNPLACED, reduction="sum")
    return total / (captions.place != UNPLACED).sum().clamp_min(1)


@torch.no_grad()
def between(network: Network, other: nn.Module, share: float = 0.5) -> Network:
    """The first network, with weights between its own (0) and the other's (1)."""
    for mine, theirs in zip(network.parameters(), other.parameters(), strict=True):
        mine.lerp_(theirs, share)
    return network
