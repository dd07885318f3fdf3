"""What all tests share: no network, one thread unless told otherwise, fixed seeds, reproducible hypothesis."""

from __future__ import annotations

import gc
import os

# Set before any library reads them.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["TRITON_INTERPRET"] = "1"  # kernels run on the CPU
os.environ["TRITON_DEFAULT_FP_FUSION"] = "1"  # said here, Triton does not warn that its default will change
os.environ["CUDA_VISIBLE_DEVICES"] = os.environ.get("SANAKIT_TEST_GPU", "")

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, settings

from tests.oracles import bounds

settings.register_profile(
    "sanakit", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
settings.load_profile("sanakit")
torch.set_num_threads(int(os.environ.get("SANAKIT_TEST_THREADS", "1")))  # others: see `make chips`
# torch keeps a list of its constructors from the first `with torch.device(...)` on: before a test replaces one of them.
with torch.device("meta"):
    torch.empty(0)


def pytest_collection_finish() -> None:
    """What was imported stays: `gc.collect`, which benchmarks call, need not look through a million objects again."""
    gc.collect()
    gc.freeze()


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A worker of xdist hands its errors to the process that prints."""
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["bounds"] = bounds.WORST


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: object) -> None:
    """The printing process takes them."""
    bounds.keep(getattr(node, "workeroutput", {}).get("bounds", {}))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the worst error of every kind of comparison that ran."""
    if bounds.WORST:
        terminalreporter.section("largest relative errors against the oracles")
        for kind, error in sorted(bounds.WORST.items()):
            terminalreporter.write_line(f"{error:.1e}  {kind}")


@pytest.fixture(autouse=True)
def _fixed_seed() -> None:
    """Every test starts from the same random state, in any order and on any worker."""
    torch.manual_seed(0)


@pytest.fixture
def triton_everywhere(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A table whose Triton rows refuse nothing: what runs where there is a GPU, through Triton's interpreter."""
    from sanakit.kernels import choice, table

    rows = tuple(
        replace(row, unsupported=lambda _: None) if row.name == "triton" else row for row in table.TABLE
    )
    monkeypatch.setattr(table, "TABLE", rows)
    monkeypatch.setattr(table, "failure", lambda *_: None)  # the interpreter is too slow for a trial
    choice._select.cache_clear()
    yield
    choice._select.cache_clear()
