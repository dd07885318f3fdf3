"""Models of the transformers layout by name, against a hub made of a folder: what is said, fetched and found again."""

from __future__ import annotations

from pathlib import Path

import huggingface_hub
import pytest

from sanakit.base.errors import ModelNotFoundError
from sanakit.weights import AUTOENCODERS, resolve_lora, resolve_snapshot
from sanakit.weights.hub import autoencoder_files, snapshot_files
from sanakit.weights.names import resolve_autoencoder
from tests.weights.hub import Hub, stand_in

REPO = "someone/tiny-clip"
WANTED = {"config.json", "model.safetensors", "tokenizer.json", "merges.txt", "chat_template.jinja"}
OTHERS = {
    "pytorch_model.bin",
    "open_clip_model.safetensors",
    "onnx/model.onnx",
    "modeling_own.py",
    "README.md",
}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    for name in WANTED | OTHERS:
        path = tmp_path / "remote" / REPO / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"{}")
    return stand_in(Hub(tmp_path / "remote", tmp_path / "cache"), monkeypatch)


def test_sizes_are_said_before_what_loading_reads_is_fetched(hub: Hub) -> None:
    folder = resolve_snapshot(REPO, announce=lambda text: hub.log.append(f"announce {text}"))
    assert hub.log[0].startswith(f"announce {REPO}: {len(WANTED)} files, ")
    assert {line.removeprefix("fetch ") for line in hub.log[1:]} == WANTED
    assert {path.name for path in folder.iterdir()} == WANTED
    hub.log.clear()
    assert resolve_snapshot(REPO, announce=hub.log.append) == folder and not hub.log


def test_offline_what_was_fetched_is_found(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = resolve_snapshot(REPO)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert resolve_snapshot(REPO) == folder
    with pytest.raises(ModelNotFoundError, match="offline"):
        resolve_snapshot("someone/else")


def test_who_refuses_when_told_fetches_nothing(hub: Hub) -> None:
    def refuse(text: str) -> None:
        raise ModelNotFoundError(text)

    with pytest.raises(ModelNotFoundError, match="to download"):
        resolve_snapshot(REPO, announce=refuse)
    assert not hub.log


def test_repositories_without_safetensors_are_refused() -> None:
    with pytest.raises(ModelNotFoundError, match=r"holds no model\.safetensors at its root"):
        snapshot_files(REPO, {"config.json": 1, "pytorch_model.bin": 5})
    shards = {f"model-0000{k}-of-00002.safetensors": 5 for k in (1, 2)} | {"model.safetensors.index.json": 1}
    assert snapshot_files(REPO, {**shards, "model.fp16-00001-of-00002.safetensors": 5}) == shards


def test_folders_are_taken_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert resolve_snapshot(tmp_path) == tmp_path
    (tmp_path / "config.json").unlink()
    with pytest.raises(ModelNotFoundError, match=r"holds no config\.json"):
        resolve_snapshot(tmp_path)
    with pytest.raises(ModelNotFoundError, match="isn't a folder or a hub id"):
        resolve_snapshot(tmp_path / "gone")


VAE = {"config.json", "diffusion_pytorch_model.safetensors"}


@pytest.fixture
def decoders(hub: Hub) -> Hub:
    """The published decoder by itself, and a whole model."""
    whole = {f"{part}/{name}" for part in ("transformer", "vae") for name in VAE} | {"model_index.json"}
    for repo, names in ((AUTOENCODERS["lite"].repo, VAE | {"README.md"}), ("someone/model", whole)):
        for name in names:
            path = hub.remote / repo / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"{}")
    return hub


def test_a_short_name_is_fetched_in_words_and_found_again_offline(
    decoders: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = resolve_autoencoder("lite", announce=lambda text: decoders.log.append(text))
    assert decoders.log[0].startswith(f"{AUTOENCODERS['lite'].repo}: 2 files, 0.0 MiB to download; licence: ")
    assert {path.name for path in folder.iterdir()} == VAE
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert resolve_autoencoder("lite") == folder
    with pytest.raises(
        ModelNotFoundError, match="no autoencoder 'full': no such folder, and the hub is offline"
    ):
        resolve_autoencoder("full")


def test_of_a_whole_model_only_the_autoencoder_is_fetched(
    decoders: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = resolve_autoencoder("someone/model")
    assert {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} == {
        f"vae/{name}" for name in VAE
    }
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert resolve_autoencoder("someone/model") == folder / "vae"


def test_what_is_no_autoencoder_is_refused(decoders: Hub, tmp_path: Path) -> None:
    with pytest.raises(
        ModelNotFoundError, match="no autoencoder 'light': it isn't a folder, .* one of lite, full"
    ):
        resolve_autoencoder("light")
    with pytest.raises(ModelNotFoundError, match="holds no autoencoder"):
        autoencoder_files("someone/text", {"config.json": 1, "model.safetensors": 2})
    (tmp_path / "lite").mkdir()
    assert resolve_autoencoder(tmp_path / "lite") == tmp_path / "lite"


def test_a_lora_of_a_repository_alone_is_fetched(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("pytorch_lora_weights.safetensors", "other.safetensors", "sub/x.safetensors", "big.bin"):
        path = hub.remote / "someone/toon" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"1234")
    found = resolve_lora("someone/toon", announce=lambda text: hub.log.append(f"announce {text}"))
    assert found.name == "pytorch_lora_weights.safetensors"
    assert hub.log[0].startswith("announce someone/toon: 1 files, ")
    assert hub.log[1:] == ["fetch pytorch_lora_weights.safetensors"]
    assert resolve_lora("someone/toon/sub/x.safetensors").read_bytes() == b"1234"
    assert hub.log[2:] == ["fetch sub/x.safetensors"]
    with pytest.raises(ModelNotFoundError, match="someone/toon has no file absent.safetensors"):
        resolve_lora("someone/toon/absent.safetensors")
    with pytest.raises(ModelNotFoundError, match="someone/tiny-clip holds several safetensors files"):
        resolve_lora(REPO)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert resolve_lora("someone/toon") == found
    assert resolve_lora("someone/toon/sub/x.safetensors").read_bytes() == b"1234"
