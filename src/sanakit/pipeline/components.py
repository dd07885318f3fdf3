"""The networks of a model, each loaded when it is needed, and the fingerprint of their weights.

Configuration -> module on the meta device -> weights assigned strictly, already in their dtype and on their device ->
the form of the engine. No network exists twice, and one that has done its work can be released.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from sanakit.adapt import expect_int8
from sanakit.adapt.runner import Runner, unwrapped
from sanakit.autoencoder import DCAE, AutoencoderConfig, LatentDecoder, LatentEncoder
from sanakit.base.errors import RequestError
from sanakit.base.heap import give_back
from sanakit.base.precision import Precision
from sanakit.pipeline.engine import Engine, edit
from sanakit.pipeline.loras import LoRAFile
from sanakit.pipeline.merged import apply_loras, swap_loras
from sanakit.text import TextEncoder, build_gemma, load_tokenizer, restore_constants
from sanakit.transformer import ControlNet, SanaTransformer
from sanakit.weights import (
    STEMS,
    ControlSpec,
    ModelSpec,
    align,
    int8_layers,
    load_autoencoder,
    load_text_encoder,
    load_transformer,
    variant_of,
    weight_files,
)

PartName = Literal["text", "transformer", "encoder", "decoder"]
Transformer = SanaTransformer | Runner
Autoencoder = DCAE | LatentDecoder | Runner
LatentEncoding = DCAE | LatentEncoder | Runner

_SAMPLES = 8  # of each file, spread evenly
_SAMPLE_BYTES = 1 << 16
_DIGITS = 12


class Components:
    """The networks of a model, loaded on first use; the encoding half of the autoencoder serves edits alone.

    engine: the form that a network is brought into once it is loaded.
    swap: LoRAs stay beside the weights of the transformer, so that others can take their place in no time; else they
    are merged into the weights while those are loaded, which costs steps nothing.
    """

    def __init__(self, spec: ModelSpec, precision: Precision, engine: Engine, *, swap: bool = False) -> None:
        self.spec = spec
        self.precision = precision
        self.engine = engine
        self.swap = swap
        self._loras: tuple[LoRAFile, ...] = ()
        self._handed_in = set[PartName]()
        self._loaded: dict[PartName, object] = {}
        self._controls: dict[Path, ControlNet | Runner] = {}

    def is_loaded(self, name: PartName) -> bool:
        """Return whether a part is in memory."""
        return name in self._loaded

    def load(self, name: PartName) -> None:
        """Load a part that isn't in memory yet. Raises WeightsError."""
        if name not in self._loaded:
            builders: dict[PartName, Callable[[], object]] = {
                "text": self._load_text,
                "transformer": self._load_transformer,
                "encoder": lambda: self._load_half("encoder", LatentEncoder),
                "decoder": lambda: self._load_half("decoder", LatentDecoder),
            }
            self._loaded[name] = builders[name]()

    def use_loras(self, loras: tuple[LoRAFile, ...]) -> None:
        """Draw with these LoRAs from now on: a transformer that has others merged into it is loaded again.

        Raises RequestError, and goes on with the LoRAs before, if they can't take the place of those.
        """
        if loras == self._loras:
            return
        if "transformer" in self._handed_in:
            raise RequestError(
                "this transformer was handed in as it is: put the LoRAs on it (adapt.lora) instead"
            )
        if self.swap and self.is_loaded("transformer"):
            swap_loras(unwrapped(self.transformer), loras)
        else:
            self.release("transformer")
        self._loras = loras

    def bytes_beside(self, loras: tuple[LoRAFile, ...]) -> int:
        """Return the bytes of adapters that stay in memory with these LoRAs; merged ones leave none."""
        size = self.dtype("transformer").itemsize
        return sum(one.size for one in loras) * size if self._beside else 0

    @property
    def _beside(self) -> bool:
        """Whether LoRAs lie beside the weights; nothing can be merged into those in int8."""
        return self.swap or bool(int8_layers(self.spec.transformer_source))

    def control(self, spec: ControlSpec) -> ControlNet | Runner:
        """Return a ControlNet beside the transformer, or what runs it; loaded on first use. Raises WeightsError."""
        if spec.source not in self._controls:
            dtype, device = self.dtype("transformer"), self.precision.device
            made = self._finish("control", spec.build(dtype=dtype, device=device, mapped=True))
            assert isinstance(made, ControlNet | Runner)
            self._controls[spec.source] = made
        return self._controls[spec.source]

    def has_control(self, spec: ControlSpec) -> bool:
        """Return whether a ControlNet is in memory."""
        return spec.source in self._controls

    def use_control(self, spec: ControlSpec, network: ControlNet) -> None:
        """Use a ControlNet that exists already, such as one under training, in the place of one on disk."""
        self._controls[spec.source] = network

    def release_controls(self, keep: Collection[ControlSpec] = ()) -> None:
        """Drop all ControlNets but some."""
        kept = {spec.source for spec in keep}
        gone = [source for source in self._controls if source not in kept]
        for source in gone:
            del self._controls[source]
        if gone:
            self._give_back()

    def replace(self, name: PartName, part: nn.Module | TextEncoder) -> None:
        """Use a part that exists already, such as a network under training, instead of the folder's."""
        self._loaded[name] = part
        self._handed_in.add(name)

    def release(self, name: PartName) -> None:
        """Drop a part; its memory is free once nothing else refers to it."""
        self._loaded.pop(name, None)
        self._handed_in.discard(name)
        self._give_back()

    def _give_back(self) -> None:
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
    def transformer(self) -> Transformer:
        """The transformer, or what runs it."""
        self.load("transformer")
        part = self._loaded["transformer"]
        assert isinstance(part, Transformer)
        return part

    @property
    def encoder(self) -> LatentEncoding:
        """The encoding half of the autoencoder, or what runs it."""
        self.load("encoder")
        part = self._loaded["encoder"]
        assert isinstance(part, LatentEncoding)
        return part

    @property
    def autoencoder(self) -> Autoencoder:
        """The decoding half of the autoencoder, or what runs it."""
        self.load("decoder")
        part = self._loaded["decoder"]
        assert isinstance(part, Autoencoder)
        return part

    def dtype(self, name: PartName) -> torch.dtype:
        """Return the dtype of a part. With fp16 only the transformer is: the others leave its range."""
        if name == "transformer" or self.precision.dtype != torch.float16:
            return self.precision.dtype
        bf16 = self.precision.device.type == "cuda" and torch.cuda.is_bf16_supported(
            including_emulation=False
        )
        return torch.bfloat16 if bf16 and name == "text" else torch.float32

    def _load_text(self) -> TextEncoder:
        spec = self.spec
        tokenizer = load_tokenizer(spec.tokenizer_folder)
        model = build_gemma(spec.text_config, "meta")
        load_text_encoder(
            model, spec.text_folder, dtype=self.dtype("text"), device=self.precision.device,
            variant=self._variant(spec.text_folder),
        )  # fmt: skip
        restore_constants(model)
        runner = edit(model, "text", self.engine)
        return TextEncoder(model, tokenizer, model_id=str(spec.folder), runner=runner)

    def _load_transformer(self) -> nn.Module:
        spec = self.spec
        with torch.device("meta"):
            model = SanaTransformer(spec.transformer)
        source, device = spec.transformer_source, self.precision.device
        expect_int8(model, int8_layers(source))
        load_transformer(
            model, spec.transformer, source, dtype=self.dtype("transformer"), device=device, mapped=True,
            variant=self._variant(source), part=spec.weights,
        )  # fmt: skip
        apply_loras(model, self._loras, beside=self._beside, swap=self.swap)
        return self._finish("transformer", model)

    def _load_half(self, name: PartName, half: Callable[[AutoencoderConfig], nn.Module]) -> nn.Module:
        spec = self.spec
        with torch.device("meta"):
            model = half(spec.autoencoder)
        load_autoencoder(
            model, spec.autoencoder, spec.autoencoder_folder,
            dtype=self.dtype(name), device=self.precision.device, mapped=True,
            variant=self._variant(spec.autoencoder_folder),
        )  # fmt: skip
        return self._finish(name, model)

    def _finish(self, name: str, module: nn.Module) -> nn.Module:
        """Bring a part into the form of the engine; align the weights that it left as they were."""
        edited = edit(module.eval().requires_grad_(False), name, self.engine)
        align(edited)
        return edited

    def _variant(self, folder: Path) -> str | None:
        """Return the variant of the weights that are read from a folder: the model's, if the folder has it."""
        return variant_of(folder, STEMS.get(folder.name, ""), self.spec.variant)


def fingerprint(spec: ModelSpec) -> str:
    """Return 12 hexadecimal digits for the weights that a spec points to; missing files don't count.

    They cover the name and size of each file and samples of its bytes: training changes all weights, so a sample tells
    models apart, while reading gigabytes for every image would not pay.
    """
    source = spec.transformer_source
    variant = spec.variant
    files = [source] if source.is_file() else _weight_files(source, variant)
    files += _weight_files(spec.autoencoder_folder, variant) + _weight_files(spec.text_folder, variant)
    digest = hashlib.sha256()
    for file in files:
        _add(digest, file)
    if spec.weights == "ema":  # the same file holds other weights, too
        digest.update(b"ema")
    return digest.hexdigest()[:_DIGITS]


def _weight_files(folder: Path, variant: str | None) -> list[Path]:
    """Return all weight files of a component; those of the variant if it was asked for and is there.

    Hidden files are drafts of writers that were stopped, not a part of a model.
    """
    stem = STEMS.get(folder.name, "")
    if variant_of(folder, stem, variant) is not None:
        return [file for file in weight_files(folder, stem, variant) if file.suffix == ".safetensors"]
    return sorted(path for path in folder.glob("*.safetensors") if not path.name.startswith("."))


def _add(digest: hashlib._Hash, file: Path) -> None:
    size = file.stat().st_size
    digest.update(f"{file.parent.name}/{file.name}:{size};".encode())
    last = max(0, size - _SAMPLE_BYTES)
    with file.open("rb") as stream:
        for start in sorted({last * part // (_SAMPLES - 1) for part in range(_SAMPLES)}):
            stream.seek(start)
            digest.update(stream.read(_SAMPLE_BYTES))
