"""The published models, as data: their hub repositories, and what a file of their weights leaves unsaid.

Sources: the model zoo of the SANA documentation, the model cards (licences as of 2025), the official configurations
(NVlabs/Sana), and for shifts the schedulers of the converted folders.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from sanakit.autoencoder import PRESETS as DCAE_PRESETS
from sanakit.autoencoder import AutoencoderConfig
from sanakit.transformer import PRESETS, TransformerConfig
from sanakit.weights.formats.diffusers_scheduler import Schedule

_LICENCE = (
    "NVIDIA's licence in the repository (non-commercial when written), text encoder under the Gemma terms"
)


@dataclass(frozen=True, kw_only=True)
class Published:
    """One repository. variant: the files to download, if it has them. licence: a note, not advice; read the card."""

    repo: str
    variant: str | None = None
    licence: str = _LICENCE


# The 1.6B of 1024 px is the BF16 one: the older weights draw noise artefacts (diffusers issue 10241).
PUBLISHED: dict[str, Published] = {
    "sana-0.6b-512": Published(repo="Efficient-Large-Model/Sana_600M_512px_diffusers", variant="fp16"),
    "sana-0.6b-1024": Published(repo="Efficient-Large-Model/Sana_600M_1024px_diffusers", variant="fp16"),
    "sana-1.6b-512": Published(repo="Efficient-Large-Model/Sana_1600M_512px_diffusers", variant="fp16"),
    "sana-1.6b-1024": Published(
        repo="Efficient-Large-Model/Sana_1600M_1024px_BF16_diffusers", variant="bf16"
    ),
    "sana-1.6b-2k": Published(repo="Efficient-Large-Model/Sana_1600M_2Kpx_BF16_diffusers", variant="bf16"),
    "sana-1.6b-4k": Published(repo="Efficient-Large-Model/Sana_1600M_4Kpx_BF16_diffusers", variant="bf16"),
    "sana1.5-1.6b-1024": Published(repo="Efficient-Large-Model/SANA1.5_1.6B_1024px_diffusers"),
    "sana1.5-4.8b-1024": Published(repo="Efficient-Large-Model/SANA1.5_4.8B_1024px_diffusers"),
    "sprint-0.6b-1024": Published(repo="Efficient-Large-Model/Sana_Sprint_0.6B_1024px_diffusers"),
    "sprint-1.6b-1024": Published(repo="Efficient-Large-Model/Sana_Sprint_1.6B_1024px_diffusers"),
}


@dataclass(frozen=True, kw_only=True)
class PublishedAutoencoder:
    """One repository of a DC-AE alone, in diffusers' layout, and its configuration."""

    repo: str
    config: AutoencoderConfig
    licence: str = "see its model card"


AUTOENCODERS: Mapping[str, PublishedAutoencoder] = MappingProxyType(
    {
        "lite": PublishedAutoencoder(
            repo="mit-han-lab/dc-ae-lite-f32c32-sana-1.1-diffusers", config=DCAE_PRESETS["f32c32-lite-1.1"]
        ),
        "full": PublishedAutoencoder(
            repo="mit-han-lab/dc-ae-f32c32-sana-1.1-diffusers", config=DCAE_PRESETS["f32c32-sana-1.1"]
        ),
    }
)
"""Decoders of the same latents, by short name: `lite` has a plainer and faster decoder, `full` the usual one."""


@dataclass(frozen=True, kw_only=True)
class Design:
    """instruct: prompts are preceded by the instruction. bins: see `ModelSpec`; None for what the size says."""

    transformer: TransformerConfig
    schedule: Schedule
    instruct: bool = True
    bins: bool | None = None


def _design(name: str) -> Design:
    transformer = PRESETS[name]
    if transformer.guidance_embed:
        return Design(transformer=transformer, schedule=Schedule(kind="scm"))
    if name == "toybox":
        return Design(transformer=transformer, schedule=Schedule(shift=2.0), instruct=False, bins=False)
    return Design(transformer=transformer, schedule=Schedule(shift=6.0 if name.endswith("-4k") else 3.0))


def _teacher(name: str) -> Design:
    """Return the teacher of Sprint: a flow model that reads times from 0 to 1."""
    student = PRESETS[name]
    return Design(
        transformer=replace(student, guidance_embed=False, time_scale=0.001), schedule=Schedule(shift=3.0)
    )


DESIGNS: Mapping[str, Design] = MappingProxyType(
    {
        **{name: _design(name) for name in PRESETS},
        "sprint-0.6b-1024-teacher": _teacher("sprint-0.6b-1024"),
        "sprint-1.6b-1024-teacher": _teacher("sprint-1.6b-1024"),
    }
)
"""By the short name, the names of the hub's models among them."""
