"""Tokenizers: loading the one of a checkpoint folder, and training a small one for a model of one's own."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sanakit.base.errors import ConfigError
from sanakit.base.files import atomic_write, ensure_writable_folder
from sanakit.base.json_text import parse_json
from sanakit.base.memory import raise_shortage

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

# In the order of their ids (config.PAD, EOS, BOS, UNK), as in Gemma.
SPECIAL_TOKENS = ("<pad>", "<eos>", "<bos>", "<unk>")
_BYTES = 256


def load_tokenizer(folder: Path | str) -> PreTrainedTokenizerBase:
    """The tokenizer of a folder (`tokenizer.json` and its neighbours), never from the network.

    Raises ConfigError when the folder is missing or holds no readable tokenizer.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ConfigError(f"there is no tokenizer folder at {folder}")
    from transformers import AutoTokenizer, PreTrainedTokenizerBase
    from transformers.tokenization_utils_base import VERY_LARGE_INTEGER

    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    except Exception as error:  # OSError, ValueError, KeyError, or a bare Exception from the Rust library
        raise_shortage(error, f"reading {folder}")
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(f"the tokenizer in {folder} can't be read: {reason}") from error
    if not isinstance(tokenizer, PreTrainedTokenizerBase):
        raise ConfigError(f"the folder {folder} holds no tokenizer")
    tokenizer.model_max_length = (
        VERY_LARGE_INTEGER  # of the file it is never obeyed: callers state their limits
    )
    return tokenizer


def train_tokenizer(lines: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer learnt from `lines`: lower-cased, <bos> in front, padded right.

    Every string encodes, since each of the 256 bytes is a token: <unk> never occurs. A word is the same token at
    the beginning of a text and inside it. The same lines give the same tokenizer. The vocabulary may stay below
    `vocab_size` when the lines hold too little to merge.
    Raises ConfigError when `vocab_size` has no room for the bytes and the special tokens.
    """
    least = _BYTES + len(SPECIAL_TOKENS)
    if vocab_size < least:
        raise ConfigError(f"a tokenizer needs a vocabulary of at least {least} tokens, not {vocab_size}")
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    pad, eos, bos, unk = SPECIAL_TOKENS
    core = Tokenizer(models.BPE())
    core.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(lines, trainer=trainer)
    core.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", pair=f"{bos} $A $B", special_tokens=[(bos, core.token_to_id(bos))]
    )
    wrap: Any = PreTrainedTokenizerFast
    tokenizer: PreTrainedTokenizerFast = wrap(
        tokenizer_object=core,
        pad_token=pad,
        eos_token=eos,
        bos_token=bos,
        unk_token=unk,
        padding_side="right",
        clean_up_tokenization_spaces=False,
    )
    return tokenizer


def save_tokenizer(tokenizer: PreTrainedTokenizerBase, folder: Path | str) -> None:
    """Writes the tokenizer's files into `folder`, which is made when missing.

    Raises OutputError when the folder can't be written.
    """
    target = ensure_writable_folder(Path(folder))
    tokenizer.save_pretrained(str(target))
    _name_for_everyone(target / "tokenizer_config.json")


def _name_for_everyone(path: Path) -> None:
    """Puts the class name that every version of transformers knows in place of the one that only version 5 knows."""
    settings = parse_json(path.read_text(encoding="utf-8"))
    if settings.get("tokenizer_class") == "TokenizersBackend":
        settings["tokenizer_class"] = "PreTrainedTokenizerFast"
        atomic_write(path, (json.dumps(settings, indent=2, ensure_ascii=False) + "\n").encode())
