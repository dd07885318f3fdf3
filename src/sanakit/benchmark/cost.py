"""How many operations a stage needs: counted on our plain graph, with all that is known beforehand left out.

Left out are padding, keys and values of the text, and attention to a text of one token.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch.utils.flop_counter import FlopCounterMode

from sanakit.autoencoder import DCAE
from sanakit.benchmark.subject import INSTRUCTION, WORDS, Subject
from sanakit.text import build_gemma
from sanakit.transformer import SanaTransformer


def operations(stage: str, subject: Subject) -> float:
    """Operations of text, step or decode; a multiplication and a sum are two."""
    shapes = replace(subject, device=torch.device("meta"))
    with shapes.device, torch.no_grad():
        return {"text": _text, "step": _step, "decode": _decode}[stage](shapes)


def _text(subject: Subject) -> float:
    """Two per weight and token; looking tokens up costs nothing."""
    model = build_gemma(subject.shapes.text, "meta")
    weights = sum(p.numel() for name, p in model.named_parameters() if "embed_tokens" not in name)
    return 2.0 * weights * (INSTRUCTION + WORDS + 1)


def _step(subject: Subject) -> float:
    model = SanaTransformer(subject.shapes.transformer).eval()
    words = subject.words(torch.float32, WORDS)
    single = torch.tensor([True, False], device="cpu")  # an empty prompt, and the prompt
    text_kv = replace(model.precompute_text(words, single), mask=None)
    latent = torch.empty(2, *subject.latent)
    guidance = torch.empty(1) if model.config.guidance_embed else None
    with FlopCounterMode(display=False) as counter:
        model(latent, torch.empty(1), text_kv, guidance)
    return float(counter.get_total_flops())


def _decode(subject: Subject) -> float:
    model = DCAE(subject.shapes.autoencoder).eval()
    with FlopCounterMode(display=False) as counter:
        model.decode(torch.empty(1, *subject.latent))
    return float(counter.get_total_flops())
