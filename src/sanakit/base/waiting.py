"""How torch's threads wait for one another; set before torch is loaded, because its OpenMP runtime reads it once.

A thread that waits at a barrier spins first and sleeps later. libgomp, torch's runtime on Linux, spins for about
300,000 rounds, which is milliseconds: if another program holds the core of the awaited thread, each of the
thousands of barriers of a picture costs that long, and the spinning itself takes a core. A few thousand rounds cover
the gap between two operators of an idle machine, and on a busy one the core is handed on soon. docs/speed.md has the
figures.
"""

from __future__ import annotations

import os
import sys
from collections.abc import MutableMapping

SPINS = 2_000
"""Rounds before a thread of libgomp sleeps; a round is some 20 to 60 ns."""

USERS = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "KMP_LIBRARY")
"""Environment variables of the user: if one of them is set, nothing is changed."""


def spin_briefly(environment: MutableMapping[str, str] = os.environ) -> bool:
    """Set the spinning of threads unless the user has; return whether it was set. No effect once torch is imported."""
    if any(name in environment for name in USERS):
        return False
    environment["GOMP_SPINCOUNT"] = str(SPINS)
    return True


def spin_before_torch() -> bool:
    """As `spin_briefly`, unless torch is imported already: whoever imported it decides how its threads wait."""
    return "torch" not in sys.modules and spin_briefly()
