"""Models that label, at toy size: random weights, saved with their processors as published ones are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from sanakit.text import train_tokenizer

SIDE, PATCH = 32, 16
LINES = ("a large red metal sphere on grass", "three green cones behind a yellow cylinder on sand at night")
CHAT = (
    "{% for m in messages %}{% for c in m['content'] %}{% if c['type'] == 'image' %}<image>{% else %}{{ c['text'] }}"
    "{% endif %}{% endfor %}{% endfor %} answer:"
)
LAYERS: dict[str, Any] = {
    "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
}  # fmt: skip
SEEING = {**LAYERS, "image_size": SIDE, "patch_size": PATCH}


def _pictures() -> Any:
    from transformers import CLIPImageProcessor

    return CLIPImageProcessor(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE})


def write_clip(folder: Path) -> Path:
    """A CLIP that reads 20 tokens."""
    from transformers import CLIPConfig, CLIPModel, CLIPProcessor

    tokenizer = train_tokenizer(LINES, vocab_size=320)
    words = {
        "vocab_size": len(tokenizer),
        "max_position_embeddings": 20,
        "bos_token_id": 2,
        "eos_token_id": 1,
    }
    torch.manual_seed(3)
    model = CLIPModel(
        CLIPConfig(text_config={**LAYERS, **words, "pad_token_id": 0}, vision_config=SEEING, projection_dim=8)
    )
    model.save_pretrained(folder)
    CLIPProcessor(_pictures(), tokenizer).save_pretrained(folder)
    return folder


def write_siglip(folder: Path) -> Path:
    """A SigLIP, whose texts are padded to 12 tokens."""
    from transformers import SiglipConfig, SiglipImageProcessor, SiglipModel, SiglipProcessor

    tokenizer = train_tokenizer(LINES, vocab_size=320)
    words = {"vocab_size": len(tokenizer), "max_position_embeddings": 12}
    torch.manual_seed(3)
    model = SiglipModel(SiglipConfig(text_config={**LAYERS, **words}, vision_config=SEEING))
    model.save_pretrained(folder)
    pictures = SiglipImageProcessor(size={"height": SIDE, "width": SIDE})
    SiglipProcessor(pictures, tokenizer).save_pretrained(folder)
    return folder


def write_llava(folder: Path, template: str | None = CHAT) -> Path:
    """A LLaVA."""
    from transformers import LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor

    tokenizer: Any = train_tokenizer(LINES, vocab_size=320)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    words = {
        "model_type": "llama", "vocab_size": len(tokenizer), "num_key_value_heads": 2, "max_position_embeddings": 256,
        "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 1,
    }  # fmt: skip
    torch.manual_seed(3)
    config = LlavaConfig(
        vision_config={**SEEING, "model_type": "clip_vision_model"}, text_config={**LAYERS, **words},
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )  # fmt: skip
    model = LlavaForConditionalGeneration(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(
                torch.randn_like(parameter) * 0.3
            )  # so that different pictures are described differently
    model.save_pretrained(folder)
    LlavaProcessor(
        _pictures(), tokenizer, patch_size=PATCH, vision_feature_select_strategy="default", chat_template=template,
        num_additional_image_tokens=1,
    ).save_pretrained(folder)  # fmt: skip
    return folder


def write_blip(folder: Path) -> Path:
    """A BLIP: it captions and takes no question."""
    from transformers import BlipConfig, BlipForConditionalGeneration, BlipImageProcessor, BlipProcessor

    tokenizer = train_tokenizer(LINES, vocab_size=320)
    words = {
        "vocab_size": len(tokenizer), "encoder_hidden_size": 16, "bos_token_id": 2, "eos_token_id": 1,
        "sep_token_id": 1, "pad_token_id": 0, "max_position_embeddings": 64,
    }  # fmt: skip
    torch.manual_seed(3)
    model = BlipForConditionalGeneration(
        BlipConfig(text_config={**LAYERS, **words}, vision_config=SEEING, projection_dim=8)
    )
    model.save_pretrained(folder)
    BlipProcessor(BlipImageProcessor(size={"height": SIDE, "width": SIDE}), tokenizer).save_pretrained(folder)
    return folder
