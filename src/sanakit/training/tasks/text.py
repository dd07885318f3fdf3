"""The text encoder of a run that trains it: its words, its first weights, and captions as it reads them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn

from sanakit.base.files import ensure_writable_folder
from sanakit.data import PictureSet
from sanakit.data.cache.fill import captions_of
from sanakit.text import CHI, build_gemma, load_tokenizer, restore_constants, save_tokenizer
from sanakit.text.tokens import Tokens, tokenise
from sanakit.text.vocabulary import add_words, new_words, widen, widened
from sanakit.training.checkpoint import Checkpoints
from sanakit.training.config import TrainConfig
from sanakit.training.parallel import World
from sanakit.training.speed import kept_bytes, text_pass, train_operations
from sanakit.weights import ModelSpec, load_text_encoder

_LOOKED_AT = 256  # captions whose longest decides about memory


class TrainedText:
    """A tokenizer that is fixed when the run begins, and a Gemma-2 that is trained.

    spec: of the base model. Its tokenizer, with the words of the captions where they are asked for, is kept in
    RUN/tokenizer, so that a run goes on with the words it began with though the set may have changed.
    """

    def __init__(self, config: TrainConfig, spec: ModelSpec, pictures: PictureSet) -> None:
        self.config, self.base, self.pictures = config, spec, pictures
        self.folder = config.folder / "tokenizer"

    @cached_property
    def tokenizer(self) -> Any:
        """That of the run, as transformers has it. Raises ConfigError where it can't be read."""
        if self._begun():
            return load_tokenizer(self.folder)
        tokenizer = load_tokenizer(self.base.tokenizer_folder)
        if self.config.text.vocabulary == "captions":
            add_words(tokenizer, new_words(tokenizer, captions_of(self.pictures)))
        return tokenizer

    @cached_property
    def spec(self) -> ModelSpec:
        """Of the model under training: its text encoder has a row for each of its words."""
        config = widened(self.base.text_config, self.tokenizer)
        return replace(self.base, text_config=config, other_tokenizer=self.folder)

    @property
    def words(self) -> int:
        """How many were added to the tokenizer of the base model."""
        return len(self.tokenizer.get_vocab()) - len(load_tokenizer(self.base.tokenizer_folder).get_vocab())

    def prepare(self, world: World) -> None:
        """Keep the tokenizer of a run that begins. Raises OutputError."""
        tokenizer = self.tokenizer
        if world.leads and not self._begun():
            save_tokenizer(tokenizer, ensure_writable_folder(self.folder))

    def build(self, device: torch.device) -> nn.Module:
        """The base model's weights, float32, and rows for new words. Raises ConfigError or WeightsError."""
        model = build_gemma(self.base.text_config, "meta")
        load_text_encoder(model, self.base.text_folder, dtype=torch.float32)
        generator = torch.Generator().manual_seed(self.config.seed)
        widen(model, int(self.spec.text_config["vocab_size"]), generator)
        restore_constants(model)
        found: nn.Module = model
        return found.to(device).requires_grad_(True)

    @cached_property
    def parameters(self) -> int:
        """How many it has."""
        return sum(p.numel() for p in build_gemma(self.spec.text_config, "meta").parameters())

    @cached_property
    def operations(self) -> float:
        """Of training on one caption as long as the longest of some."""
        return train_operations(self._once())

    @cached_property
    def kept(self) -> int:
        """Bytes that are kept for the backward pass of one caption."""
        return kept_bytes(self._once())

    def _once(self) -> Callable[[], Tensor]:
        """A pass over one caption, as long as the longest of some."""
        captions = captions_of(self.pictures)
        some = captions[:: max(1, len(captions) // _LOOKED_AT)]
        return partial(text_pass, self.spec.text_config, self.read(some).ids.shape[1])

    def read(self, captions: Sequence[str]) -> Tokens:
        """Captions as the model reads them."""
        instruction = CHI if self.base.instruct else None
        return tokenise(self.tokenizer, captions, instruction, lowercase=self.base.dialect.lowercase)

    def _begun(self) -> bool:
        return self.folder.is_dir() and bool(Checkpoints(self.folder.parent).steps())
