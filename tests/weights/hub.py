"""A hub made of a folder, in place of huggingface_hub's own."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest


class Hub:
    """Stands in for huggingface_hub: `remote` holds repositories, `cache` what was fetched."""

    def __init__(self, remote: Path, cache: Path) -> None:
        self.remote, self.cache = remote, cache
        self.error: Exception | None = None
        self.log: list[str] = []

    def model_info(self, repo: str, *, revision: str | None = None, files_metadata: bool = False) -> Any:
        if self.error:
            raise self.error
        assert files_metadata
        folder = self.remote / repo
        files = [path for path in folder.rglob("*") if path.is_file()]
        siblings = [
            SimpleNamespace(rfilename=str(p.relative_to(folder)), size=p.stat().st_size) for p in files
        ]
        return SimpleNamespace(sha="abc", siblings=siblings)

    def snapshot_download(self, repo: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        if self.error:
            raise self.error
        assert revision is None
        for name in allow_patterns:
            if not (self.cache / repo / name).exists():
                self.log.append(f"fetch {name}")
                (self.cache / repo / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(self.remote / repo / name, self.cache / repo / name)
        return str(self.cache / repo)

    def try_to_load_from_cache(self, repo: str, name: str, *, revision: str | None = None) -> str | None:
        path = self.cache / repo / name
        return str(path) if path.exists() else None


def stand_in(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """Let every call to the hub reach this one."""
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: hub)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", hub.snapshot_download)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", hub.try_to_load_from_cache)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    return hub
