"""Tokenizers: loading and training one, and prompts as padded rows of token ids.

Letters: B prompts, N tokens that the language model reads, L kept tokens, C the width of the states.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sanakit.base.errors import ConfigError
from sanakit.base.files import atomic_write, ensure_writable_folder
from sanakit.base.json_text import parse_json
from sanakit.base.memory import raise_shortage
from sanakit.base.text_states import TextStates
from sanakit.text import prompt as rule
from sanakit.text.prompt import MAX_TOKENS, Instruction

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import Gemma2Model, PreTrainedTokenizerBase, PreTrainedTokenizerFast

# In the order of their ids (config.PAD, EOS, BOS, UNK), as in Gemma.
SPECIAL_TOKENS = ("<pad>", "<eos>", "<bos>", "<unk>")
_BYTES = 256


def load_tokenizer(folder: Path | str) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a folder (`tokenizer.json` and its neighbours), never from the network.

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
    tokenizer.model_max_length = VERY_LARGE_INTEGER  # that of the file is ignored: callers state their limits
    return tokenizer


def train_tokenizer(lines: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer on `lines`: lower-cased, <bos> in front, padded right.

    Every string encodes, since each of the 256 bytes is a token: <unk> never occurs. A word is the same token at
    the beginning of a text and inside it. The same lines give the same tokenizer. The vocabulary may stay below
    `vocab_size` when the lines hold too little to merge.
    Raises ConfigError when `vocab_size` has no room for the bytes and the special tokens.
    """
    least = _BYTES + len(SPECIAL_TOKENS)
    if vocab_size < least:
        raise ConfigError(f"a tokenizer needs a vocabulary of at least {least} tokens, not {vocab_size}")
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

    bos = SPECIAL_TOKENS[2]
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
    return _wrapped(core)


def extend_tokenizer(tokenizer: PreTrainedTokenizerBase, words: Iterable[str]) -> PreTrainedTokenizerFast:
    """Return a tokenizer of `train_tokenizer` that reads these words whole, too; the new ids follow the old ones.

    All other words are read as before. Unlike `text.add_words`, which is for every tokenizer, this leaves what follows
    a word as it is, a comma for instance. Words that are whole already get no second id.
    """
    from tokenizers import Tokenizer

    state = parse_json(tokenizer.backend_tokenizer.to_str())
    vocabulary: dict[str, int] = state["model"]["vocab"]
    for word in words:
        [(piece, _)] = tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str(word)
        vocabulary.setdefault(piece, len(vocabulary))
    state["model"]["ignore_merges"] = (
        True  # a word of the vocabulary is a token, whether merges lead to it or not
    )
    return _wrapped(Tokenizer.from_str(json.dumps(state)))


def _wrapped(core: Tokenizer) -> PreTrainedTokenizerFast:
    from transformers import PreTrainedTokenizerFast

    pad, eos, bos, unk = SPECIAL_TOKENS
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
    """Write the tokenizer's files into `folder`, which is made if missing.

    Raises OutputError when the folder can't be written.
    """
    target = ensure_writable_folder(Path(folder))
    tokenizer.save_pretrained(str(target))
    _name_for_everyone(target / "tokenizer_config.json")


def _name_for_everyone(path: Path) -> None:
    """Put the class name that every version of transformers knows in place of the one that only version 5 knows."""
    settings = parse_json(path.read_text(encoding="utf-8"))
    if settings.get("tokenizer_class") == "TokenizersBackend":
        settings["tokenizer_class"] = "PreTrainedTokenizerFast"
        atomic_write(path, (json.dumps(settings, indent=2, ensure_ascii=False) + "\n").encode())


@dataclass(frozen=True, eq=False, kw_only=True)
class Tokens:
    """The input of a text encoder for a batch of prompts.

    ids: [B, N] int64, padded right. real: [B, N] bool, False at padding. kept: [B, L] int64, the positions among N
    whose states condition the transformer. mask: [B, L] bool, False beyond the tokens that a row keeps.
    """

    ids: Tensor
    real: Tensor
    kept: Tensor
    mask: Tensor

    def to(self, device: torch.device | str) -> Tokens:
        """Return the same on a device."""
        return Tokens(
            ids=self.ids.to(device), real=self.real.to(device), kept=self.kept.to(device), mask=self.mask.to(device)
        )  # fmt: skip


def tokenise(
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    instruction: Instruction | None = None,
    *,
    lowercase: bool,
    max_tokens: int = MAX_TOKENS,
) -> Tokens:
    """Tokenise each prompt behind the instruction; the empty prompt is read without it, as in generation."""
    chosen = [(prompt, instruction if prompt else None) for prompt in prompts]
    limits = {how: limit_of(tokenizer, how, max_tokens) for _, how in chosen}
    rows = [
        row_of(tokenizer, rule.final_prompt(prompt, how, lowercase), limits[how]) for prompt, how in chosen
    ]
    kept = [
        [place for place in rule.kept_positions(limits[how], max_tokens) if place < len(row)]
        for (_, how), row in zip(chosen, rows, strict=True)
    ]
    ids, real = _padded(rows, int(tokenizer.pad_token_id or 0))
    places, mask = _padded(kept, 0)
    return Tokens(ids=ids, real=real, kept=places, mask=mask)


def read_tokens(model: Gemma2Model, tokens: Tokens) -> TextStates:
    """Return the kept states [B, L, C], with gradient. The tokens must be on the device of the model."""
    output = model(input_ids=tokens.ids, attention_mask=tokens.real.long(), use_cache=False)
    states: Tensor = output.last_hidden_state
    places = tokens.kept[..., None].expand(-1, -1, states.shape[-1])
    return TextStates(states.gather(1, places), tokens.mask)


def row_of(tokenizer: PreTrainedTokenizerBase, text: str, limit: int) -> list[int]:
    """Return the ids of a final prompt, cut to `limit`."""
    return list(tokenizer(text, truncation=True, max_length=limit)["input_ids"])


def limit_of(tokenizer: PreTrainedTokenizerBase, instruction: Instruction | None, max_tokens: int) -> int:
    """Return the number of tokens that the language model reads at most, instruction included."""
    counted = 0 if instruction is None else len(tokenizer(instruction.text, verbose=False)["input_ids"])
    return rule.length_limit(counted, max_tokens)


def _padded(rows: Sequence[Sequence[int]], fill: int) -> tuple[Tensor, Tensor]:
    """Return rows as [B, longest] int64, padded with `fill`, and the mask of what is real."""
    length = max(len(row) for row in rows)
    values = torch.full((len(rows), length), fill)
    for index, row in enumerate(rows):
        values[index, : len(row)] = torch.tensor(row)
    return values, torch.arange(length) < torch.tensor([len(row) for row in rows])[:, None]
