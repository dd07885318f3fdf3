"""Trained tokenizers: any text encodes, files are read by transformers and diffusers, broken files are refused."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import pytest
from diffusers import SanaPipeline
from transformers import AutoTokenizer, Gemma2Model, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from sanakit.base import ConfigError, OutputError
from sanakit.text import SPECIAL_TOKENS, TextEncoder, load_tokenizer, save_tokenizer, train_tokenizer

UNSEEN = [
    "xylophone quartz",
    "zürich ß œ",
    "日本語 🦜",
    "tab\tand\nline",
    "a,b;c!",
    "  two  spaces",
    "e\u0301",
]


def test_special_tokens_and_bos(tokenizer: PreTrainedTokenizerBase) -> None:
    assert tokenizer.convert_tokens_to_ids(list(SPECIAL_TOKENS)) == [0, 1, 2, 3]
    ids = tokenizer("a red sphere")["input_ids"]
    assert ids[0] == 2 and 1 not in ids and tokenizer.padding_side == "right"
    assert tokenizer("")["input_ids"] == [2]
    padded = tokenizer(["a", "a red sphere"], padding=True)["input_ids"]
    assert padded[0][-1] == 0


@pytest.mark.parametrize("text", UNSEEN)
def test_unseen_text_survives(tokenizer: PreTrainedTokenizerBase, text: str) -> None:
    ids = tokenizer(text)["input_ids"]
    assert 3 not in ids
    assert (
        tokenizer.decode(ids, skip_special_tokens=True).strip() == unicodedata.normalize("NFC", text).strip()
    )


def test_words_are_the_same_token_everywhere(tokenizer: PreTrainedTokenizerBase) -> None:
    red = tokenizer("Red")["input_ids"][1:]
    assert len(red) == 1
    assert tokenizer("a red")["input_ids"][-1:] == red


def test_training_is_repeatable() -> None:
    lines = ["a red cube", "two red cubes", "a green cone"]
    assert train_tokenizer(lines, 280).get_vocab() == train_tokenizer(iter(lines), 280).get_vocab()


def test_vocabulary_needs_room_for_bytes() -> None:
    with pytest.raises(ConfigError, match="at least 260"):
        train_tokenizer(["a"], 259)


def test_saved_tokenizer_loads_everywhere(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    save_tokenizer(tokenizer, tmp_path / "deep" / "tokenizer")
    folder = tmp_path / "deep" / "tokenizer"
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    assert settings["tokenizer_class"] == "PreTrainedTokenizerFast"
    for loaded in (
        load_tokenizer(folder),
        AutoTokenizer.from_pretrained(folder),
        PreTrainedTokenizerFast.from_pretrained(folder),
    ):
        assert loaded.get_vocab() == tokenizer.get_vocab()
        assert loaded.padding_side == "right" and loaded.pad_token_id == 0
        for text in [*UNSEEN, "A red sphere", ""]:
            assert loaded(text)["input_ids"] == tokenizer(text)["input_ids"]
            assert loaded(text, padding="max_length", max_length=40, truncation=True)["input_ids"][-1] == 0


def test_saved_tokenizer_loads_in_a_diffusers_folder(
    encoder: TextEncoder, gemma: Gemma2Model, tmp_path: Path
) -> None:
    save_tokenizer(encoder.tokenizer, tmp_path / "tokenizer")
    gemma.save_pretrained(tmp_path / "text_encoder")
    kinds = {"tokenizer": "PreTrainedTokenizerFast", "text_encoder": "Gemma2Model"}
    index = {name: ["transformers", kind] for name, kind in kinds.items()}
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "SanaPipeline", **index}))
    pipe = SanaPipeline.from_pretrained(tmp_path, transformer=None, vae=None, scheduler=None)
    states, mask, _, _ = pipe.encode_prompt(["A Red cube"], max_sequence_length=16, device="cpu")
    ours = encoder.encode(["A Red cube"], lowercase=True)
    assert int(mask.sum()) == ours.states.shape[1]
    assert (states[:, : ours.states.shape[1]] - ours.states).abs().max() < 1e-5


def test_missing_and_corrupt_tokenizers_are_refused(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="no tokenizer folder"):
        load_tokenizer(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="can't be read"):
        load_tokenizer(tmp_path / "empty")
    save_tokenizer(tokenizer, tmp_path / "cut")
    whole = (tmp_path / "cut" / "tokenizer.json").read_bytes()
    for broken in (whole[: len(whole) // 2], b"", b"{}", b"[]", b"\xff\xfe", b'{"model": 1}'):
        (tmp_path / "cut" / "tokenizer.json").write_bytes(broken)
        with pytest.raises(ConfigError) as caught:
            load_tokenizer(tmp_path / "cut")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("length", [3, 0.3, "512", [1], {"a": 1}, True, None])
def test_the_length_in_a_file_counts_for_nothing(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path, length: object
) -> None:
    save_tokenizer(tokenizer, tmp_path)
    config = tmp_path / "tokenizer_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"model_max_length": length}))
    text = "a red sphere left of a blue cube"
    assert load_tokenizer(tmp_path)(text)["input_ids"] == tokenizer(text)["input_ids"]


def test_unwritable_folder_is_refused(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        save_tokenizer(tokenizer, tmp_path / "file")
