"""What all tests share: no network, one thread, fixed seeds, reproducible hypothesis."""

from __future__ import annotations

import os

# Set before any library reads them.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["CUDA_VISIBLE_DEVICES"] = os.environ.get("SANAKIT_TEST_GPU", "")

import pytest
import torch
from hypothesis import HealthCheck, settings

settings.register_profile(
    "sanakit", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
settings.load_profile("sanakit")
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _fixed_seed() -> None:
    """Every test starts from the same random state, in any order and on any worker."""
    torch.manual_seed(0)
