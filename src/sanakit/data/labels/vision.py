"""Captioners and scorers from models that `transformers` loads: any vision-language model, CLIP and SigLIP.

Beside `text` this file and `dense.py` alone import `transformers`. No code in a model's folder is executed. Pictures
and texts go through the model's own processor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from sanakit.base.errors import ConfigError
from sanakit.base.precision import Precision
from sanakit.data.labels.labellers import Captioner, Scorer

INSTRUCTION = "Describe this picture in one or two sentences. Say what is seen, not what it means."
QUESTION = 'Does this picture show: "{text}"? Answer yes or no.'
_ANSWERS = (("yes", "no"), ("Yes", "No"), ("YES", "NO"), (" yes", " no"), (" Yes", " No"))
_NO_LIMIT = 10**6  # tokenizers without a limit name an enormous one


def vision_captioner(
    folder: Path, precision: Precision, *, instruction: str | None = None, max_tokens: int = 128
) -> Captioner:
    """Load a captioner from a model with `AutoModelForImageTextToText`; decoding is greedy.

    instruction: the prompt; None is INSTRUCTION for a chat model and nothing for one that only captions.
    max_tokens: the most of a caption. Raises ConfigError if the folder holds no such model.
    """
    from transformers import AutoModelForImageTextToText

    model, processor = load_vision(AutoModelForImageTextToText, folder, precision)
    if getattr(processor, "tokenizer", None) is not None:
        processor.tokenizer.padding_side = "left"  # captions are continued at the end of a row
    text = _question(processor, instruction)

    @torch.inference_mode()
    def caption(pictures: Sequence[Image.Image]) -> list[str]:
        asked = {} if text is None else {"text": [text] * len(pictures), "padding": True}
        batch = processor(images=[[picture] for picture in pictures], return_tensors="pt", **asked)
        batch = batch.to(precision.device, model.dtype)
        tokens = model.generate(**batch, max_new_tokens=max_tokens, do_sample=False)
        said = processor.batch_decode(_answers(tokens, batch), skip_special_tokens=True)
        return [str(line).strip() for line in said]

    return caption


def _question(processor: Any, instruction: str | None) -> str | None:
    """Return the prompt for every picture, through the chat template if the model has one."""
    if not getattr(processor, "chat_template", None):
        return instruction
    content = [{"type": "image"}, {"type": "text", "text": instruction or INSTRUCTION}]
    asked = [{"role": "user", "content": content}]
    return str(processor.apply_chat_template(asked, add_generation_prompt=True, tokenize=False))


def _answers(tokens: Tensor, batch: Any) -> Tensor:
    """Remove the prompt, which decoders repeat before their answer."""
    asked = batch.get("input_ids")
    if asked is None or tokens.shape[1] < asked.shape[1]:
        return tokens
    return tokens[:, asked.shape[1] :] if torch.equal(tokens[:, : asked.shape[1]], asked) else tokens


def question_scorer(folder: Path, precision: Precision) -> Scorer:
    """Load a scorer that asks a vision-language model whether a picture shows a text: 100 x the share of "yes".

    The share is that of the probability of answers that begin with "yes", of those with "yes" or "no", as in VQAScore
    (arXiv 2404.01291) and as SANA-1.5's verifier reads the logit of "yes" (arXiv 2501.18427, section 2.3).
    Raises ConfigError if the folder holds no such model, or one that can't answer.
    """
    from transformers import AutoModelForImageTextToText

    model, processor = load_vision(AutoModelForImageTextToText, folder, precision)
    pairs = _answer_tokens(processor)
    if not pairs:
        raise ConfigError(f"the model in {folder} has no words for yes and no: it can't be asked")
    rows = [torch.tensor(sorted(set(each)), device=precision.device) for each in zip(*pairs, strict=True)]

    @torch.inference_mode()
    def ask(picture: Image.Image, text: str) -> float:
        asked = _question(processor, QUESTION.format(text=text))
        batch = processor(images=[[picture]], text=[asked], return_tensors="pt")
        logits = model(**batch.to(precision.device, model.dtype)).logits[0, -1].float()
        said_yes, said_no = (logits[each].logsumexp(0) for each in rows)
        return float(100 * (said_yes - said_no).sigmoid())

    def score(pictures: Sequence[Image.Image], captions: Sequence[Sequence[str]]) -> list[list[float]]:
        # One at a time: the answer is the last token, and processors pad texts in ways of their own.
        return [[ask(picture, text) for text in row] for picture, row in zip(pictures, captions, strict=True)]

    return score


def _answer_tokens(processor: Any) -> list[tuple[int, int]]:
    """Return the tokens in which "yes" and "no" part, of each way to write them that the model has tokens for."""
    tokenizer = getattr(processor, "tokenizer", None)
    if tokenizer is None:
        return []
    unknown, found = getattr(tokenizer, "unk_token_id", None), []
    for words in _ANSWERS:
        spelt = (tokenizer(word, add_special_tokens=False)["input_ids"] for word in words)
        # Some tokenizers begin every word with a token for the space before it.
        parting = next(((a, b) for a, b in zip(*spelt, strict=False) if a != b), None)
        if parting is not None and unknown not in parting:
            found.append((int(parting[0]), int(parting[1])))
    return found


def vision_scorer(folder: Path, precision: Precision) -> Scorer:
    """Load a scorer from a model with `get_image_features` and `get_text_features` (CLIP, SigLIP): 100 x cosine.

    Captions longer than the model reads are cut. Raises ConfigError if the folder holds no such model.
    """
    from transformers import AutoModel

    model, processor = load_vision(AutoModel, folder, precision)
    if not hasattr(model, "get_image_features") or not hasattr(model, "get_text_features"):
        raise ConfigError(
            f"{folder} is a {type(model).__name__}, which does not compare pictures with texts: use a CLIP"
        )
    limit = _longest(model, processor)
    # SigLIP was trained on texts padded to its length, and reads padding.
    padding = "max_length" if "siglip" in str(model.config.model_type) else True

    @torch.inference_mode()
    def score(pictures: Sequence[Image.Image], captions: Sequence[Sequence[str]]) -> list[list[float]]:
        texts = list(dict.fromkeys(text for row in captions for text in row))
        if not texts:
            return [[] for _ in captions]
        seen = processor(images=list(pictures), return_tensors="pt").to(precision.device, model.dtype)
        said = processor(text=texts, return_tensors="pt", padding=padding, truncation=True, max_length=limit)
        shown = _features(model.get_image_features(**seen))
        meant = _features(model.get_text_features(**said.to(precision.device)))
        row_of = {text: row for row, text in enumerate(texts)}
        cosines = (100 * shown @ meant.T).tolist()
        return [[cosines[row][row_of[text]] for text in texts] for row, texts in enumerate(captions)]

    return score


def vision_features(folder: Path, precision: Precision) -> Callable[[Sequence[Image.Image]], Tensor]:
    """Load what reads features [N, D] float32 of pictures: a CLIP's of pictures, or the pooled output of another model.

    Raises ConfigError if the folder holds no model that reads pictures alone.
    """
    from transformers import AutoModel

    model, processor = load_vision(AutoModel, folder, precision, images=True)

    @torch.inference_mode()
    def read(pictures: Sequence[Image.Image]) -> Tensor:
        seen = processor(images=list(pictures), return_tensors="pt").to(precision.device, model.dtype)
        found: Any = (
            model.get_image_features(**seen) if hasattr(model, "get_image_features") else model(**seen)
        )
        pooled = found if isinstance(found, Tensor) else getattr(found, "pooler_output", None)
        if pooled is None:
            raise ConfigError(f"the model in {folder} gives no features of a whole picture")
        return pooled.flatten(1).float().cpu()

    return read


def _features(output: Any) -> Tensor:
    """Normalised embeddings [N, D] in float32; newer versions of the library wrap them."""
    plain: Tensor = output if isinstance(output, Tensor) else output.pooler_output
    return torch.nn.functional.normalize(plain.float(), dim=-1)


def _longest(model: Any, processor: Any) -> int:
    """Return how many tokens of a text the model reads."""
    positions = getattr(getattr(model.config, "text_config", None), "max_position_embeddings", None)
    stated = getattr(processor.tokenizer, "model_max_length", _NO_LIMIT)
    known = [int(limit) for limit in (positions, stated) if limit and limit < _NO_LIMIT]
    return min(known, default=77)


def load_vision(kind: Any, folder: Path, precision: Precision, *, images: bool = False) -> tuple[Any, Any]:
    """Load a model in evaluation mode, and its processor; that of pictures alone if it reads nothing else.

    Raises ConfigError.
    """
    from transformers import AutoImageProcessor, AutoProcessor

    processors: Any = AutoImageProcessor if images else AutoProcessor
    try:
        with _quiet():
            processor = processors.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
            model = kind.from_pretrained(
                folder, dtype=precision.dtype, local_files_only=True, trust_remote_code=False, use_safetensors=True
            )  # fmt: skip
    except Exception as error:  # OSError, ValueError, KeyError, ImportError of what a processor needs
        reason = " ".join(str(error).split())[:300]
        raise ConfigError(f"the model in {folder} can't be loaded: {reason}") from error
    return model.to(precision.device).eval().requires_grad_(False), processor


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the library's warnings and progress bars: problems are errors here."""
    from transformers.utils import logging as remarks

    logging: Any = remarks
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
