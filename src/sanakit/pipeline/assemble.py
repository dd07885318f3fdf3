"""From a folder to loaded parts, each only when it is needed.

Configuration -> module on the meta device -> edits (`adapt`) -> weights assigned strictly, already in their dtype and
on their device -> the form of the engine. No model exists twice, and a part that has done its work can be released.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from sanakit.adapt import expect_int8
from sanakit.autoencoder import DCAE
from sanakit.base.heap import give_back
from sanakit.base.precision import Precision
from sanakit.pipeline.engine import Engine, apply_engine
from sanakit.text import TextEncoder, build_gemma, load_tokenizer, restore_constants
from sanakit.transformer import SanaTransformer
from sanakit.weights import (
    STEMS,
    ModelSpec,
    align,
    int8_layers,
    load_autoencoder,
    load_text_encoder,
    load_transformer,
    variant_of,
)

PartName = Literal["text", "transformer", "decoder"]
Adapt = Callable[[PartName, nn.Module], None]


class Parts:
    """The three networks of a model, loaded on first use.

    adapt: edits a part between building and loading (adapters, quantised layers); it sees its name and the module,
    whose weights are still on the meta device. engine: the form that a part is brought into once it is loaded.
    """

    def __init__(
        self, spec: ModelSpec, precision: Precision, engine: Engine, adapt: Adapt | None = None
    ) -> None:
        self.spec = spec
        self.precision = precision
        self.engine = engine
        self._adapt = adapt
        self._loaded: dict[PartName, object] = {}

    def is_loaded(self, name: PartName) -> bool:
        """Whether using the part costs no loading."""
        return name in self._loaded

    def load(self, name: PartName) -> None:
        """Loads a part that is not there yet."""
        if name not in self._loaded:
            builders: dict[PartName, Callable[[], object]] = {
                "text": self._load_text,
                "transformer": self._load_transformer,
                "decoder": self._load_autoencoder,
            }
            self._loaded[name] = builders[name]()

    def put(self, name: PartName, part: nn.Module | TextEncoder) -> None:
        """Use a part that exists already, such as a network under training, in the place of the folder's."""
        self._loaded[name] = part

    def release(self, name: PartName) -> None:
        """Forgets a part; its memory is free once nothing else refers to it."""
        self._loaded.pop(name, None)
        if self.precision.device.type == "cuda":
            torch.cuda.empty_cache()
        else:
            give_back()

    @property
    def text(self) -> TextEncoder:
        """The text encoder with its tokenizer."""
        self.load("text")
        part = self._loaded["text"]
        assert isinstance(part, TextEncoder)
        return part

    @property
    def transformer(self) -> SanaTransformer:
        """The transformer."""
        self.load("transformer")
        part = self._loaded["transformer"]
        assert isinstance(part, SanaTransformer)
        return part

    @property
    def autoencoder(self) -> DCAE:
        """The autoencoder."""
        self.load("decoder")
        part = self._loaded["decoder"]
        assert isinstance(part, DCAE)
        return part

    def dtype(self, name: PartName) -> torch.dtype:
        """The dtype of a part. With fp16 only the transformer is: the others leave its range."""
        if name == "transformer" or self.precision.dtype != torch.float16:
            return self.precision.dtype
        bf16 = self.precision.device.type == "cuda" and torch.cuda.is_bf16_supported(
            including_emulation=False
        )
        return torch.bfloat16 if bf16 and name == "text" else torch.float32

    def _load_text(self) -> TextEncoder:
        found = self.spec
        tokenizer = load_tokenizer(found.tokenizer_folder)
        model = build_gemma(found.text_config, "meta")
        self._edit("text", model)
        load_text_encoder(
            model, found.text_folder, dtype=self.dtype("text"), device=self.precision.device,
            variant=self._variant(found.text_folder),
        )  # fmt: skip
        restore_constants(model)
        if self.engine.widened:
            apply_engine(self.engine, "text", model)
        return TextEncoder(model, tokenizer, model_id=str(found.folder))

    def _load_transformer(self) -> SanaTransformer:
        found = self.spec
        with torch.device("meta"):
            model = SanaTransformer(found.transformer)
        self._edit("transformer", model)
        source, where = found.transformer_source, self.precision.device
        expect_int8(model, int8_layers(source))
        load_transformer(
            model, found.transformer, source, dtype=self.dtype("transformer"), device=where, mapped=True,
            variant=self._variant(source), part=found.weights,
        )  # fmt: skip
        self._bring("transformer", model)
        return model

    def _load_autoencoder(self) -> DCAE:
        found = self.spec
        with torch.device("meta"):
            model = DCAE(found.autoencoder)
        self._edit("decoder", model)
        load_autoencoder(
            model, found.autoencoder, found.autoencoder_folder,
            dtype=self.dtype("decoder"), device=self.precision.device, mapped=True,
            variant=self._variant(found.autoencoder_folder),
        )  # fmt: skip
        model.encoder = None  # type: ignore[assignment]  # drawing needs the decoder only
        self._bring("decoder", model)
        return model

    def _bring(self, name: PartName, module: nn.Module) -> None:
        """Into the form of the engine; what that laid out anew need not be copied before, only what it left."""
        apply_engine(self.engine, name, module.eval().requires_grad_(False))
        align(module)

    def _variant(self, folder: Path) -> str | None:
        """Which weights of a component are read: those of the model's variant, where it has them."""
        return variant_of(folder, STEMS.get(folder.name, ""), self.spec.variant)

    def _edit(self, name: PartName, module: nn.Module) -> None:
        if self._adapt is not None:
            self._adapt(name, module)
