"""Checkpoints of a run: folders of safetensors that appear whole or not at all, proven by a manifest.

    RUN/checkpoints/step-00001000/   shard-*.safetensors   every tensor of the run, by torch's distributed engine,
                                                           so that any number of processes can read it again
                                     run.json              what else the run is: its step, its settings, its versions
                                     manifest.json         size and SHA-256 of each file; written last

A checkpoint is written into a hidden folder, synced, and renamed; one of the same step is exchanged for it. No other
one goes before that. Reading takes the newest one whose manifest holds.
"""

from __future__ import annotations

import json
import shutil
import threading
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch.distributed as dist
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from sanakit.base.errors import OutputError, WeightsError
from sanakit.base.files import file_sha256
from sanakit.base.folders import remove_folder, swap, sync_tree
from sanakit.base.json_text import read_object
from sanakit.training.parallel import World

_FACTS, _MANIFEST = "run.json", "manifest.json"
_MOST_JSON = 2**26  # bytes; the list of a run's shards has thousands


class Checkpoints:
    """The checkpoints in `folder`/checkpoints, of which the last `keep` stay (0 keeps all)."""

    def __init__(self, folder: Path, world: World | None = None, keep: int = 2) -> None:
        self.folder = folder / "checkpoints"
        self.world = world or World()
        self.keep = keep
        self._writer: threading.Thread | None = None
        self._failure: BaseException | None = None
        self._group: Any = None

    def save(self, step: int, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Write a checkpoint and wait for it. To be called by every process.

        Raises OutputError if the disk refuses; the earlier checkpoints stay.
        """
        self.finish()
        self._write(step, {name: tensor.contiguous() for name, tensor in tensors.items()}, facts)

    def save_behind(self, step: int, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Copy the tensors and write them while the run goes on; a failure is raised by the next call or `finish`."""
        self.finish()
        if self.world.size > 1 and self._group is None:
            self._group = dist.new_group(backend="gloo")
        staged = {name: _copy(tensor) for name, tensor in tensors.items()}
        self._writer = threading.Thread(target=self._try, args=(step, staged, facts), name="checkpoint")
        self._writer.start()

    def finish(self) -> None:
        """Wait for the checkpoint that is being written. Raises what went wrong with it."""
        if self._writer is not None:
            self._writer.join()
            self._writer = None
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure

    def latest(self, notify: Callable[[str], object] = lambda text: None) -> Path | None:
        """Return the newest whole checkpoint, None if there is none; `notify` gets a sentence about each damaged one.

        Raises WeightsError if there are checkpoints and none is whole: the run must not start anew by itself.
        """
        found = self.steps()
        for step in reversed(found):
            fault = fault_of(self.path(step))
            if fault is None:
                return self.path(step)
            notify(f"{self.path(step)} is damaged ({fault}); the one before it is used.")
        if found:
            raise WeightsError(
                f"none of the {len(found)} checkpoints in {self.folder} is whole; "
                f"restore one, or remove the folder to start again"
            )
        return None

    def steps(self) -> list[int]:
        """Return the steps of the checkpoints that have a name, in order."""
        names = [path.name.removeprefix("step-") for path in self.folder.glob("step-*") if path.is_dir()]
        return sorted(int(name) for name in names if name.isdecimal())

    def newest(self) -> int | None:
        """Return the step that a run would go on from, as far as names and sizes tell; None if there is none."""
        sound = (step for step in reversed(self.steps()) if not fault_of(self.path(step), whole=False))
        return next(sound, None)

    def path(self, step: int) -> Path:
        """Return the folder of a step's checkpoint."""
        return self.folder / f"step-{step:08d}"

    def _try(self, step: int, tensors: dict[str, Tensor], facts: Mapping[str, Any]) -> None:
        try:
            self._write(step, tensors, facts)
        except BaseException as failure:  # noqa: BLE001 -- raised again in the run's own thread
            self._failure = failure

    def _write(self, step: int, tensors: dict[str, Tensor], facts: Mapping[str, Any]) -> None:
        draft, leads = self.folder / f".step-{step:08d}.part", self.world.leads
        try:
            self._in_step(step, lambda: _begin(draft) if leads else None)
            self._in_step(step, lambda: _write_tensors(tensors, draft, self.world, self._group))
            self._in_step(step, lambda: self._seal(draft, step, facts) if leads else None)
        except BaseException:
            if leads:  # half a checkpoint would keep a full disk full
                shutil.rmtree(draft, ignore_errors=True)
            raise

    def _in_step(self, step: int, act: Callable[[], None]) -> None:
        """Do a part of writing; no process goes on before all have done theirs.

        Raises OutputError on every process if one of them fails, so that none waits for it.
        """
        fault: BaseException | None = None
        try:
            act()
        except (OSError, CheckpointException) as error:
            fault = error
        faults = self._all_of(None if fault is None else getattr(fault, "strerror", None) or _reason(fault))
        why = next((text for text in faults if text is not None), None)
        if why is not None:
            raise OutputError(f"can't write the checkpoint {self.path(step)}: {why}") from fault

    def _all_of(self, fault: str | None) -> list[str | None]:
        """Return the fault of each process, by rank."""
        every: list[str | None] = [fault] * self.world.size
        if self.world.size > 1:
            dist.all_gather_object(every, fault, group=self._group)
        return every

    def _seal(self, draft: Path, step: int, facts: Mapping[str, Any]) -> None:
        """Manifest, sync, its name; then the oldest go."""
        (draft / _FACTS).write_text(json.dumps(facts, indent=1), encoding="utf-8")
        files = sorted(path for path in draft.iterdir() if path.name != _MANIFEST)
        listed = {path.name: {"bytes": path.stat().st_size, "sha256": file_sha256(path)} for path in files}
        (draft / _MANIFEST).write_text(json.dumps(listed, indent=1), encoding="utf-8")
        sync_tree(draft)
        # There is one of this step already if a run was stopped, or went back, before its next one.
        swap(draft, self.path(step), replace=True)
        before = [known for known in self.steps() if known <= step]  # a later one was passed over as damaged
        for old in before[: -self.keep] if self.keep else []:
            remove_folder(self.path(old))

    def sweep(self) -> None:
        """Remove what a killed run has left half-written. Only for who holds the run's folder."""
        for path in self.folder.glob(".step-*.part"):
            shutil.rmtree(path, ignore_errors=True)


def read_facts(checkpoint: Path) -> dict[str, Any]:
    """Read what a checkpoint says of its run. Raises WeightsError if that can't be read."""
    try:
        return read_object(checkpoint / _FACTS, _MOST_JSON)
    except (OSError, ValueError) as error:
        raise WeightsError(f"{checkpoint} is damaged ({error})") from None


def read_into(checkpoint: Path, tensors: Mapping[str, Tensor], world: World | None = None) -> None:
    """Fill tensors, in place, from the checkpoint's of the same names, however either is sharded.

    Raises WeightsError if a name or a shape is missing.
    """
    world = world or World()
    try:
        _hush()
        reader = HuggingFaceStorageReader(str(checkpoint))
        load(dict(tensors), storage_reader=reader, no_dist=world.size == 1)
    except (Exception, CheckpointException) as error:
        raise WeightsError(f"{checkpoint} does not fit this run: {_reason(error)}") from error


def stored_names(checkpoint: Path) -> frozenset[str]:
    """Return the names of a checkpoint's tensors. Raises WeightsError if they can't be read."""
    try:
        return frozenset(HuggingFaceStorageReader(str(checkpoint)).read_metadata().state_dict_metadata)
    except (Exception, CheckpointException) as error:
        raise WeightsError(f"{checkpoint} is damaged ({_reason(error)})") from error


def fault_of(checkpoint: Path, *, whole: bool = True) -> str | None:
    """Return what is wrong with a checkpoint's files; None if its manifest holds.

    whole: read every byte; without it sizes alone are compared.
    """
    try:
        listed = read_object(checkpoint / _MANIFEST, _MOST_JSON)
        if _FACTS not in listed or len(listed) < 2:
            return f"{_MANIFEST} names no {_FACTS} or no tensors"
        for name, entry in listed.items():
            path = checkpoint / name
            if path.parent != checkpoint or not path.is_file():
                return f"{name} is not a file of it"
            if not isinstance(entry, dict) or not {"bytes", "sha256"} <= entry.keys():
                return f"{_MANIFEST} does not say what {name} holds"
            if path.stat().st_size != entry["bytes"]:
                return f"{name} has {path.stat().st_size} of {entry['bytes']} bytes"
            if whole and file_sha256(path) != entry["sha256"]:
                return f"{name} is not what was written"
        return _fault_of_facts(read_object(checkpoint / _FACTS, _MOST_JSON), checkpoint)
    except (OSError, ValueError) as error:
        return str(error)


def _fault_of_facts(facts: Mapping[str, Any], checkpoint: Path) -> str | None:
    """Return what is wrong with what a checkpoint says of its run; None if nothing is."""
    wrong = [name for name in ("guard", "settings") if not isinstance(facts.get(name, {}), dict)]
    step = facts.get("step")
    if wrong or not isinstance(step, int):
        return f"{_FACTS} has no {[*wrong, 'step'][0]}"
    return None if checkpoint.name == f"step-{step:08d}" else f"{_FACTS} is of step {step}"


def _begin(draft: Path) -> None:
    """Make an empty folder, whatever an earlier attempt left there."""
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)


def _write_tensors(tensors: dict[str, Tensor], folder: Path, world: World, group: Any) -> None:
    writer = HuggingFaceStorageWriter(str(folder), save_distributed=True)
    _hush()
    save(tensors, storage_writer=writer, process_group=group, no_dist=world.size == 1)


def _copy(tensor: Tensor) -> Tensor:
    """Return a copy in memory of its own, with rows one after the other, as files want it."""
    packed = tensor.detach().contiguous()
    return packed.clone() if packed.data_ptr() == tensor.data_ptr() else packed


def _hush() -> None:
    """torch warns that one process is one process. The filter stays: a thread must not set one for a while."""
    warnings.filterwarnings("ignore", message="torch.distributed is disabled")


def _reason(error: BaseException) -> str:
    """Return the last line of torch's report of all processes, which is what the first of them said."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1].partition("Error: ")[2] or lines[-1] if lines else type(error).__name__
