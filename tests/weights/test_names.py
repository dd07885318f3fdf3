"""Names to paths, against a hub made of a folder: what is announced, what is fetched, what happens offline."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

import huggingface_hub
import pytest

from sanakit import transformer
from sanakit.base.errors import ModelNotFoundError
from sanakit.weights import PUBLISHED, STEMS, read_model_spec, resolve
from sanakit.weights.names import needed_files
from tests.weights.hub import Hub, stand_in

REPO = "someone/tiny-sana"


@pytest.fixture
def hub(tmp_path: Path, sana_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    shutil.copytree(sana_folder, tmp_path / "remote" / REPO)
    (tmp_path / "remote" / REPO / "picture.png").write_bytes(b"big")
    (tmp_path / "remote" / REPO / "transformer/diffusion_pytorch_model.bin").write_bytes(b"old")
    return stand_in(Hub(tmp_path / "remote", tmp_path / "cache"), monkeypatch)


def test_sizes_are_announced_before_anything_is_fetched(hub: Hub) -> None:
    folder = resolve(REPO, announce=lambda text: hub.log.append(f"announce {text}"))
    assert read_model_spec(folder).kind == "sana"
    assert hub.log[0].startswith(f"announce {REPO}: ") and "MiB to download (transformer 0." in hub.log[0]
    assert "licence: see its model card" in hub.log[0]
    assert sum(line.startswith("announce") for line in hub.log) == 1
    fetched = {line.removeprefix("fetch ") for line in hub.log[1:]}
    assert "picture.png" not in fetched and "transformer/diffusion_pytorch_model.bin" not in fetched
    hub.log.clear()
    assert resolve(REPO, announce=lambda text: hub.log.append(text)) == folder and not hub.log


def test_an_announcement_can_refuse(hub: Hub) -> None:
    def refuse(text: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        resolve(REPO, announce=refuse)
    assert not hub.cache.exists()


def test_offline_only_the_cache_is_asked(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = resolve(REPO)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    hub.error = AssertionError("the network was asked")
    assert resolve(REPO) == folder
    shutil.rmtree(folder)
    with pytest.raises(ModelNotFoundError, match=r"offline \(HF_HUB_OFFLINE\) and it is not in the cache"):
        resolve(REPO)


def test_the_cache_of_the_real_client(
    tmp_path: Path, sana_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    commit, home = "0123456789" * 4, tmp_path / "models--someone--tiny-sana"
    shutil.copytree(sana_folder, home / "snapshots" / commit)
    (home / "refs").mkdir()
    (home / "refs/main").write_text(commit)
    assert read_model_spec(resolve(REPO)).folder == home / "snapshots" / commit
    assert resolve(REPO, revision=commit) == home / "snapshots" / commit
    for name in ("someone/other", "someone/a--b", f"someone/{'x' * 99}"):
        with pytest.raises(ModelNotFoundError, match="not in the cache"):
            resolve(name)


def test_network_failures(hub: Hub) -> None:
    hub.error = ConnectionError("no route")
    with pytest.raises(ModelNotFoundError, match=r"the hub did not answer \(ConnectionError\)"):
        resolve(REPO)
    hub.error = None
    folder = resolve(REPO)
    hub.error = ConnectionError("no route")
    assert resolve(REPO) == folder  # the cache helps out

    class RepositoryNotFoundError(Exception):
        pass

    hub.error = RepositoryNotFoundError()
    with pytest.raises(
        ModelNotFoundError, match=r"no such repository.*did you mean.*Sana_600M_1024px_diffusers"
    ):
        resolve("Efficient-Large-Model/Sana_1600M_1024px_difusers")


def test_a_download_that_breaks_off(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(*args: object, **options: object) -> str:
        raise TimeoutError

    monkeypatch.setattr(huggingface_hub, "snapshot_download", breaks)
    with pytest.raises(
        ModelNotFoundError, match=r"downloading .* failed: the hub did not answer \(TimeoutError\)"
    ):
        resolve(REPO)


DISK = [
    (OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
    (PermissionError(errno.EACCES, "Permission denied"), "Permission denied"),
    (OSError(errno.EROFS, "Read-only file system"), "Read-only file system"),
    (RuntimeError("Data processing error: IO Error: No space left on device (os error 28)"), "No space left"),
]


@pytest.mark.parametrize(("error", "words"), DISK, ids=lambda value: str(value)[:30])
def test_a_cache_that_can_not_be_written_is_told_as_such(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, error: Exception, words: str
) -> None:
    def refuses(*args: object, **options: object) -> str:
        raise LookupError("wrapped by the client") from error

    with monkeypatch.context() as patch:
        patch.setattr(huggingface_hub, "snapshot_download", refuses)
        with pytest.raises(
            ModelNotFoundError, match=rf"the hub's cache .* can't be written \({words}.*set HF_HOME"
        ):
            resolve(REPO)
    folder = resolve(REPO)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuses)
    assert resolve(REPO) == folder  # nothing has to be written


def test_a_repository_of_another_layout(hub: Hub) -> None:
    (hub.remote / REPO / "model_index.json").unlink()
    with pytest.raises(ModelNotFoundError, match=r"isn't a diffusers folder .* \.pth"):
        resolve(REPO)


SIZES = {
    "README.md": 1,
    "LICENSE.txt": 1,
    "model_index.json": 1,
    "scheduler/scheduler_config.json": 1,
    "tokenizer/tokenizer.json": 1,
    "transformer/config.json": 1,
    "transformer/diffusion_pytorch_model.safetensors.index.json": 1,
    "transformer/diffusion_pytorch_model-00001-of-00002.safetensors": 1,
    "transformer/diffusion_pytorch_model-00002-of-00002.safetensors": 1,
    "transformer/diffusion_pytorch_model.bf16.safetensors": 1,
    "vae/config.json": 1,
    "vae/diffusion_pytorch_model.safetensors": 1,
    "text_encoder/config.json": 1,
    "text_encoder/model.safetensors.index.bf16.json": 1,
    "text_encoder/model.bf16-00001-of-00002.safetensors": 1,
    "text_encoder/model.bf16-00002-of-00002.safetensors": 1,
    "text_encoder/generation_config.json": 1,
}


@pytest.mark.parametrize("variant", [None, "bf16", "fp16"])
def test_needed_files(variant: str | None) -> None:
    needed = set(needed_files(REPO, SIZES, variant))
    surplus = set(SIZES) - needed
    plain = {
        name
        for name in SIZES
        if name.startswith("transformer/diffusion_pytorch_model") and ".bf16." not in name
    }
    other = plain if variant == "bf16" else {"transformer/diffusion_pytorch_model.bf16.safetensors"}
    assert surplus == other | {"README.md", "text_encoder/generation_config.json"}


@pytest.mark.parametrize("old", [True, False], ids=["model-00001-of-00002.fp16", "model.fp16-00001-of-00002"])
@pytest.mark.parametrize("variant", [None, "fp16"])
def test_shards_of_a_variant_by_both_ways_to_name_them(old: bool, variant: str | None) -> None:
    def shards(stem: str, tag: str) -> set[str]:
        parts = [f"-{i:05d}-of-00002" for i in (1, 2)]
        return {
            f"{stem}{part}{tag}.safetensors" if old else f"{stem}{tag}{part}.safetensors" for part in parts
        }

    stems = [f"{folder}/{stem}" for folder, stem in STEMS.items()]
    plain = {name for stem in stems for name in shards(stem, "") | {f"{stem}.safetensors.index.json"}}
    other = {
        name for stem in stems for name in shards(stem, ".fp16") | {f"{stem}.safetensors.index.fp16.json"}
    }
    sizes = dict.fromkeys({"model_index.json"} | plain | other, 1)
    assert set(needed_files(REPO, sizes, variant)) - {"model_index.json"} == (other if variant else plain)


def test_folders_and_pth_files_are_taken_as_they_are(sana_folder: Path, tmp_path: Path) -> None:
    assert resolve(sana_folder) == sana_folder and resolve(str(sana_folder)) == sana_folder
    (tmp_path / "a.pth").write_bytes(b"")
    assert resolve(str(tmp_path / "a.pth")) == tmp_path / "a.pth"


@pytest.mark.parametrize("name", ["toybx", "/no/such/folder", "sana-1.6b", "", "a b"])
def test_unknown_names_come_with_near_ones(name: str) -> None:
    with pytest.raises(ModelNotFoundError, match=r"did you mean|known names are toybox") as caught:
        resolve(name)
    assert ("toybox" in str(caught.value)) == (name != "sana-1.6b")


@pytest.mark.parametrize(
    ("name", "place", "remedy"),
    [("toybox", "model", "install sanakit again"), ("toybox-sprint", "sprint", "recipes.toybox_sprint")],
)
def test_shipped_models_are_found_inside_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, place: str, remedy: str
) -> None:
    monkeypatch.setattr("sanakit.weights.names.resources.files", lambda package: tmp_path)
    with pytest.raises(ModelNotFoundError, match=f"lacks the weights of {name}: .*{remedy}"):
        resolve(name)
    (tmp_path / "toybox" / place).mkdir(parents=True)
    (tmp_path / "toybox" / place / "model_index.json").write_text("{}")
    assert resolve(name) == tmp_path / "toybox" / place


def test_published_names_are_those_of_the_presets(hub: Hub) -> None:
    assert PUBLISHED.keys() == transformer.PRESETS.keys() - {"toybox"}
    entry = PUBLISHED["sana-1.6b-1024"]
    shutil.copytree(hub.remote / REPO, hub.remote / entry.repo)
    model = hub.remote / entry.repo / "transformer/diffusion_pytorch_model"
    shutil.copy(f"{model}.safetensors", f"{model}.bf16.safetensors")
    said: list[str] = []
    folder = resolve("sana-1.6b-1024", announce=said.append)
    assert [path.name for path in (folder / "transformer").glob("*.safetensors")] == [
        f"{model.name}.bf16.safetensors"
    ]
    assert "non-commercial" in said[0] and "Gemma" in said[0]
