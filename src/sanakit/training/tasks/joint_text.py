"""A transformer and its text encoder, trained as one network: one optimiser, average and checkpoint.

`TrainedText` is the encoder's side: its words, its first weights, and captions as it reads them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from sanakit.base.files import ensure_writable_folder
from sanakit.data import PictureSet
from sanakit.data.cache.fill import captions_of
from sanakit.text import CHI, build_gemma, load_tokenizer, restore_constants, save_tokenizer
from sanakit.text.tokenizer import Tokens, read_tokens, tokenise
from sanakit.text.vocabulary import add_words, new_words, widen, widened
from sanakit.training.checkpoint import Checkpoints
from sanakit.training.config import TrainConfig
from sanakit.training.cost import kept_bytes, text_pass, train_operations
from sanakit.training.parallel import World
from sanakit.transformer import Positions, SanaTransformer
from sanakit.weights import ModelSpec, load_text_encoder

_TRANSFORMER, _TEXT = "transformer", "text_encoder"
_MEASURED = 256  # captions whose longest decides about memory


class JointNetwork(nn.Module):
    """Reads tokens and predicts velocities. FSDP gathers what lies outside the layers of both in this forward pass."""

    def __init__(self, transformer: SanaTransformer, text_encoder: nn.Module) -> None:
        super().__init__()
        self.transformer = transformer
        self.text_encoder = text_encoder

    def forward(self, x: Tensor, t: Tensor, tokens: Tokens, positions: Positions | None = None) -> Tensor:
        """x [B, C, h, w], t [B], tokens of B captions, positions as in `SanaTransformer` -> velocity [B, C, h, w]."""
        encoder = cast(Any, self.text_encoder)  # a Gemma2Model
        velocity: Tensor = self.transformer(x, t, read_tokens(encoder, tokens), positions=positions)
        return velocity


def transformer_of(network: nn.Module) -> SanaTransformer:
    """Return the transformer of a network under training: itself, or that inside of it."""
    return cast(SanaTransformer, getattr(network, _TRANSFORMER, network))


def layers_of(network: nn.Module) -> Sequence[nn.Module]:
    """Return the layers of the text encoder, if it is trained."""
    return list(cast(Any, network.text_encoder).layers) if isinstance(network, JointNetwork) else []


def transformer_weights(network: nn.Module, weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Return the weights of the transformer, under its own names, among the weights of the network."""
    return _inside(weights, _TRANSFORMER) if hasattr(network, _TRANSFORMER) else weights


def text_weights(network: nn.Module, weights: Mapping[str, Tensor]) -> Mapping[str, Tensor] | None:
    """Return the weights of the text encoder, None if it is frozen."""
    return _inside(weights, _TEXT) if isinstance(network, JointNetwork) else None


def scale_rate(optimizer: torch.optim.Optimizer, parameters: Iterable[nn.Parameter], scale: float) -> None:
    """Give some parameters groups of their own, whose learning rate is `scale` times that of the others, in place."""
    apart = {id(parameter) for parameter in parameters}
    for group in list(optimizer.param_groups):
        chosen = [parameter for parameter in group["params"] if id(parameter) in apart]
        if chosen:
            group["params"] = [parameter for parameter in group["params"] if id(parameter) not in apart]
            optimizer.add_param_group({**group, "params": chosen, "scale": scale})


def _inside(weights: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    prefix = f"{name}."
    return {key.removeprefix(prefix): weight for key, weight in weights.items() if key.startswith(prefix)}


class TrainedText:
    """A tokenizer that is fixed when the run begins, and a Gemma-2 that is trained.

    spec: of the base model. Its tokenizer, with the words of the captions if they are asked for, is kept in
    RUN/tokenizer, so that a run goes on with the words it began with though the set may have changed.
    """

    def __init__(self, config: TrainConfig, spec: ModelSpec, pictures: PictureSet) -> None:
        self.config, self.base, self.pictures = config, spec, pictures
        self.folder = config.folder / "tokenizer"

    @cached_property
    def tokenizer(self) -> Any:
        """The tokenizer of the run, as transformers has it. Raises ConfigError if it can't be read."""
        if self._begun():
            return load_tokenizer(self.folder)
        tokenizer = load_tokenizer(self.base.tokenizer_folder)
        if self.config.text.vocabulary == "captions":
            add_words(tokenizer, new_words(tokenizer, captions_of(self.pictures)))
        return tokenizer

    @cached_property
    def spec(self) -> ModelSpec:
        """The model under training: its text encoder has a row for each of its words."""
        config = widened(self.base.text_config, self.tokenizer)
        return replace(self.base, text_config=config, other_tokenizer=self.folder)

    @property
    def words(self) -> int:
        """The number of words added to the tokenizer of the base model."""
        return len(self.tokenizer.get_vocab()) - len(load_tokenizer(self.base.tokenizer_folder).get_vocab())

    def prepare(self, world: World) -> None:
        """Keep the tokenizer of a run that begins. Raises OutputError."""
        tokenizer = self.tokenizer
        if world.leads and not self._begun():
            save_tokenizer(tokenizer, ensure_writable_folder(self.folder))

    def build(self, device: torch.device) -> nn.Module:
        """Build it, float32, from the base model's weights, with rows for new words. Raises InputError."""
        model = build_gemma(self.base.text_config, "meta")
        load_text_encoder(model, self.base.text_folder, dtype=torch.float32)
        generator = torch.Generator().manual_seed(self.config.seed)
        widen(model, int(self.spec.text_config["vocab_size"]), generator)
        restore_constants(model)
        found: nn.Module = model
        return found.to(device).requires_grad_(True)

    @cached_property
    def parameters(self) -> int:
        """The number of its parameters."""
        return sum(p.numel() for p in build_gemma(self.spec.text_config, "meta").parameters())

    @cached_property
    def operations(self) -> float:
        """Operations of training on one caption as long as the longest of some."""
        return train_operations(self._once())

    @cached_property
    def kept(self) -> int:
        """Bytes that are kept for the backward pass of one caption."""
        return kept_bytes(self._once())

    def _once(self) -> Callable[[], Tensor]:
        """Return a pass over one caption, as long as the longest of some."""
        captions = captions_of(self.pictures)
        some = captions[:: max(1, len(captions) // _MEASURED)]
        return partial(text_pass, self.spec.text_config, self.read(some).ids.shape[1])

    def read(self, captions: Sequence[str]) -> Tokens:
        """Captions as the model reads them."""
        instruction = CHI if self.base.instruct else None
        return tokenise(self.tokenizer, captions, instruction, lowercase=self.base.dialect.lowercase)

    def _begun(self) -> bool:
        return self.folder.is_dir() and bool(Checkpoints(self.folder.parent).steps())
