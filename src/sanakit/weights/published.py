"""The published SANA models on the Hugging Face hub, as data: short name, repository, variant, licence.

Sources: the model zoo of the SANA documentation, and the model cards (licences as they stood there in 2025).
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["PUBLISHED", "Published"]

_LICENCE = (
    "NVIDIA's licence in the repository (non-commercial when written), text encoder under the Gemma terms"
)


@dataclass(frozen=True, kw_only=True)
class Published:
    """One repository. variant: the files to fetch, where it has them. licence: a note, not advice; read the card."""

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
