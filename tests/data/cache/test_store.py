"""The folder of tensors: round trips, several writers, and every way in which a write can be cut off."""

from __future__ import annotations

import errno
import multiprocessing
import os
import pickle
import signal
from pathlib import Path

import pytest
import torch

from sanakit.base.errors import ConfigError, OutputError, WeightsError
from sanakit.data.cache import store
from sanakit.data.cache.store import TensorCache, shards_in, verify

pytestmark = [
    pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="needs fork"),
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]
FORK = multiprocessing.get_context("fork")


def some(seed: int, *shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(shape or (2, 3), generator=torch.Generator().manual_seed(seed)).to(dtype)


def filled(folder: Path, *keys: str) -> TensorCache:
    cache = TensorCache(folder)
    for key in keys:
        cache.put(key, {"latent": some(len(key))})
    cache.flush()
    return cache


def states_of(folder: Path) -> list[str]:
    return [check.state for check in verify(folder)]


def test_what_was_put_comes_back_to_the_bit(tmp_path: Path) -> None:
    cache = TensorCache(tmp_path / "deep/cache")
    kept = {
        "a": {"latent": some(1, 8, 4, 4), "more": torch.arange(5)},
        "b": {"states": some(2, 7, 16, dtype=torch.bfloat16)},
        "c": {"states": some(3, 0, 16)},
    }
    for key, tensors in kept.items():
        cache.put(key, tensors)
    before = {key: cache.get(key) for key in kept}
    cache.flush()
    for opened in (cache, TensorCache(cache.folder), TensorCache(cache.folder, read_only=True)):
        assert set(opened) == set(kept) and len(opened) == 3 and "a" in opened and "d" not in opened
        assert opened.get("d") is None
        for key, tensors in kept.items():
            found = opened.get(key)
            assert found is not None and before[key] is not None and found.keys() == tensors.keys()
            for name, tensor in tensors.items():
                assert found[name].dtype == tensor.dtype and torch.equal(found[name], tensor)
    assert states_of(cache.folder) == ["whole"]


def test_a_key_is_kept_once(tmp_path: Path) -> None:
    cache = filled(tmp_path, "a")
    cache.put("a", {"latent": torch.zeros(1)})
    assert cache.flush() is None
    assert torch.equal(cache.get("a")["latent"], some(1))  # type: ignore[index]


def test_what_is_put_may_change_afterwards(tmp_path: Path) -> None:
    cache = TensorCache(tmp_path)
    buffer = torch.ones(3)
    cache.put("a", {"latent": buffer})
    buffer.zero_()
    cache.flush()
    assert cache.get("a")["latent"].tolist() == [1, 1, 1]  # type: ignore[index]


def test_a_shard_is_written_when_enough_has_come(tmp_path: Path) -> None:
    cache = TensorCache(tmp_path, shard_bytes=100)
    for index in range(5):
        cache.put(str(index), {"latent": torch.zeros(13)})  # 52 bytes
    assert len(shards_in(tmp_path)) == 2
    assert cache.flush() is not None and cache.flush() is None
    assert len(TensorCache(tmp_path)) == 5


@pytest.mark.parametrize("key", ["", "a/b"])
def test_keys_that_are_none(tmp_path: Path, key: str) -> None:
    with pytest.raises(ConfigError, match="without a slash"):
        TensorCache(tmp_path).put(key, {"latent": torch.zeros(1)})


def test_reading_only_makes_and_changes_nothing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no cache at .*nowhere: fill one"):
        TensorCache(tmp_path / "nowhere", read_only=True)
    assert not (tmp_path / "nowhere").exists()
    with pytest.raises(ConfigError, match="reading only"):
        TensorCache(tmp_path, read_only=True).put("a", {"latent": torch.zeros(1)})


def write_some(folder: Path, name: str) -> None:
    cache = TensorCache(folder, shard_bytes=300)
    for index in range(20):
        cache.put(f"{name}{index}", {"latent": torch.full((10,), float(index))})
        cache.put(f"both{index}", {"latent": torch.full((10,), float(index))})
    cache.flush()


def test_two_processes_write_into_one_folder(tmp_path: Path) -> None:
    seen = TensorCache(tmp_path)
    writers = [FORK.Process(target=write_some, args=(tmp_path, name)) for name in "ab"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    assert len(seen) == 0
    seen.refresh()
    assert len(seen) == 60
    for name in ("a", "b", "both"):
        assert all(seen.get(f"{name}{k}")["latent"].eq(k).all() for k in range(20))  # type: ignore[index]
    assert set(states_of(tmp_path)) == {"whole"}


def test_it_can_be_sent_to_another_process(tmp_path: Path) -> None:
    cache = filled(tmp_path, "a")
    assert cache.get("a")
    assert torch.equal(pickle.loads(pickle.dumps(cache)).get("a")["latent"], some(1))


def test_half_a_shard_is_passed_over_and_told(tmp_path: Path) -> None:
    filled(tmp_path, "a")
    cache = filled(tmp_path, "bb")
    broken = next(path for path in shards_in(tmp_path) if b"bb/" in path.read_bytes())
    broken.write_bytes(broken.read_bytes()[:-5])
    again = TensorCache(tmp_path)
    assert list(again) == ["a"] and torch.equal(again.get("a")["latent"], some(1))  # type: ignore[index]
    (fault,) = again.faults
    assert fault.path == broken and "bytes of tensors" in fault.text
    checks = {check.path: check for check in verify(tmp_path)}
    assert (
        checks[broken].state == "broken" and "delete it and run `sanakit data cache`" in checks[broken].text
    )
    assert sorted(states_of(tmp_path)) == ["broken", "whole"]
    with pytest.raises(WeightsError, match="can't be read"):
        cache.get("bb")
    again.put("bb", {"latent": some(2)})
    again.flush()
    assert set(TensorCache(tmp_path)) == {"a", "bb"}


def test_a_shard_that_goes_while_it_is_used(tmp_path: Path) -> None:
    cache = filled(tmp_path, "a")
    shards_in(tmp_path)[0].unlink()
    with pytest.raises(WeightsError, match="can't be read"):
        cache.get("a")


def test_the_index_is_rebuilt_from_the_shards(tmp_path: Path) -> None:
    filled(tmp_path, "a")
    filled(tmp_path, "bb")
    for manifest in tmp_path.glob("*.json"):
        manifest.unlink()
    assert set(TensorCache(tmp_path)) == {"a", "bb"}
    assert states_of(tmp_path) == ["unsigned", "unsigned"]
    assert states_of(tmp_path) == ["whole", "whole"]


def test_a_manifest_that_is_none_is_made_anew(tmp_path: Path) -> None:
    filled(tmp_path, "a")
    next(tmp_path.glob("*.json")).write_text("[")
    assert list(TensorCache(tmp_path)) == ["a"]
    assert states_of(tmp_path) == ["unsigned"]


def test_a_changed_byte_is_found(tmp_path: Path) -> None:
    filled(tmp_path, "a")
    (shard,) = shards_in(tmp_path)
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(data)
    assert states_of(tmp_path) == ["broken"]


def test_a_longer_file_under_an_old_manifest_is_a_fault(tmp_path: Path) -> None:
    filled(tmp_path, "a")
    filled(tmp_path, "bbb")
    first, second = shards_in(tmp_path)
    # Whole in itself, but not what was written under this name.
    cache = TensorCache(tmp_path / "other")
    cache.put("c", {"latent": torch.zeros(99)})
    cache.flush()
    first.write_bytes(shards_in(tmp_path / "other")[0].read_bytes())
    assert "the size it was written with" in TensorCache(tmp_path).faults[0].text


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_a_full_disk_is_one_sentence_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    cache = filled(tmp_path, "a")
    cache.put("bb", {"latent": some(2)})
    with monkeypatch.context() as full:

        def refuse(handle: int) -> None:
            raise OSError(code, os.strerror(code))

        full.setattr(os, "fsync", refuse)
        with pytest.raises(OutputError, match=f"can't write .*shard-.*: {os.strerror(code)}"):
            cache.flush()
    assert len(shards_in(tmp_path)) == 1 and not list(tmp_path.glob(".*"))
    assert torch.equal(cache.get("bb")["latent"], some(2))  # type: ignore[index]
    cache.flush()
    assert set(TensorCache(tmp_path)) == {"a", "bb"}


def test_a_failure_inside_the_write_leaves_whole_shards_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(tmp_path, "a")
    cache = TensorCache(tmp_path)
    cache.put("bb", {"latent": some(2)})

    def stop(*names: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as stopped:
        stopped.setattr(os, "replace", stop)
        with pytest.raises(KeyboardInterrupt):
            cache.flush()
    assert list(TensorCache(tmp_path)) == ["a"] and states_of(tmp_path) == ["whole"]
    cache.flush()
    assert set(TensorCache(tmp_path)) == {"a", "bb"}


def die(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def write_and_die(folder: Path, where: str) -> None:
    cache = filled(folder, "a")
    cache.put("bb", {"latent": torch.ones(4)})
    if where == "draft":
        os.fsync = die
    else:
        store.write_manifest = die
    cache.flush()


@pytest.mark.parametrize(("where", "keys"), [("draft", {"a"}), ("manifest", {"a", "bb"})])
def test_kill_nine_during_a_write(tmp_path: Path, where: str, keys: set[str]) -> None:
    process = FORK.Process(target=write_and_die, args=(tmp_path, where))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert ("draft" in states_of(tmp_path)) == (where == "draft")
    cache = TensorCache(tmp_path)
    assert set(cache) == keys and not cache.faults
    assert not {"broken", "draft"} & set(states_of(tmp_path))


@pytest.mark.parametrize(
    "text", ['{"bytes": Infinity, "sha256": "a"}', '{"bytes": [], "sha256": "a"}', "[]", "7"]
)
def test_a_manifest_that_makes_no_sense_counts_as_missing(tmp_path: Path, text: str) -> None:
    from sanakit.data.cache.store import read_manifest

    (tmp_path / "shard-1.json").write_text(text)
    assert read_manifest(tmp_path / "shard-1.safetensors") is None
