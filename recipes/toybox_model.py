"""What `recipes/toybox.py` trains beside the autoencoder: a small Gemma-2 and a small SANA transformer, joined."""

from __future__ import annotations

import random
from pathlib import Path

from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from sanakit.base.values import TextStates
from sanakit.layers.embed import TextEmbed
from sanakit.text import build_gemma, load_tokenizer, save_tokenizer, small_gemma, train_tokenizer
from sanakit.toybox.captions import caption
from sanakit.toybox.dataset import SceneShards
from sanakit.transformer import PRESETS, SanaTransformer, initialise

TOKENS = 40
VOCABULARY = 512
TRANSFORMER = PRESETS["toybox"]


def text_config(vocabulary: int) -> dict[str, object]:
    """The Gemma-2 architecture at 1.1 M parameters."""
    return small_gemma(
        vocab=vocabulary, width=TRANSFORMER.text_width, layers=4, heads=5, kv_heads=5, head_dim=32, ffn=320
    )


def build_tokenizer(folder: Path, shards: SceneShards) -> PreTrainedTokenizerBase:
    """The tokenizer in `folder`, trained on the captions of the data set where there is none yet."""
    if not (folder / "tokenizer.json").exists():
        lines = [caption(shards.scene(i), random.Random(i)) for i in range(min(len(shards), 8000))]
        save_tokenizer(train_tokenizer(lines, VOCABULARY), folder)
    return load_tokenizer(folder)


def caption_ids(
    tokenizer: PreTrainedTokenizerBase, shards: SceneShards, indices: list[int], step: int, dropout: float
) -> tuple[Tensor, Tensor]:
    """One caption per scene, drawn anew for each step: ids [B, L] and mask [B, L]. Dropped captions are empty."""
    lines = []
    for index in indices:
        rng = random.Random(step * 1_000_003 + index)
        lines.append("" if rng.random() < dropout else caption(shards.scene(index), rng))
    tokens = tokenizer(lines, padding="max_length", truncation=True, max_length=TOKENS, return_tensors="pt")
    return tokens["input_ids"], tokens["attention_mask"].bool()


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


class TextToVelocity(nn.Module):
    """Captions and noisy latents in, velocity out: both networks as one, for joint training."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.text = build_gemma(text_config(vocabulary), device="cpu")
        self.transformer = initialise(SanaTransformer(TRANSFORMER))
        spread_text(self.text, self.transformer.text)

    def forward(self, latent: Tensor, time: Tensor, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """latent [B, C, h, w], time [B], ids and mask [B, L] -> velocity [B, C, h, w], and `retelling`."""
        states = self.text(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
        velocity: Tensor = self.transformer(latent, time, TextStates(states, mask))
        return velocity, retelling(states, ids, mask, self.text.embed_tokens.weight)


def retelling(states: Tensor, ids: Tensor, mask: Tensor, table: Tensor) -> Tensor:
    """How badly the last state of a caption tells its words: cross-entropy to each of them through their embeddings.

    A text encoder that learns from the flow alone forgets what the flow does not use yet. Ours merged "left" and
    "right" before the transformer knew one side from the other, and then had nothing to learn the sides by.

    Args:
        states: [B, L, C].
        ids: [B, L], <bos> first.
        mask: [B, L], real tokens first.
        table: [V, C], the embeddings.
    """
    last = mask.sum(dim=1, keepdim=True) - 1  # [B, 1]
    summary = states.gather(1, last[..., None].expand(-1, -1, states.shape[-1]))[:, 0]  # [B, C]
    told = (summary @ table.T).float().log_softmax(dim=-1).gather(1, ids)  # [B, L]
    words = mask[:, 1:]
    return -(told[:, 1:] * words).sum() / words.sum().clamp_min(1)
