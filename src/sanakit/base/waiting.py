"""How the threads of torch wait for one another, set before torch is loaded: its OpenMP runtime reads this once.

A thread that waits at a barrier spins first and sleeps later. libgomp, torch's runtime on Linux, spins for about
300,000 rounds, milliseconds: where another program holds the core of the thread that is waited for, every one of the
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
"""Settings of users: where one of them is there, nothing is changed."""


def spin_briefly(environment: MutableMapping[str, str] = os.environ) -> bool:
    """Set the spinning of threads, unless the user has; whether it was set. Without effect once torch is imported."""
    if any(name in environment for name in USERS):
        return False
    environment["GOMP_SPINCOUNT"] = str(SPINS)
    return True


def spin_before_torch() -> bool:
    """The same, where torch is still to be imported: who brings it says how its threads wait."""
    return "torch" not in sys.modules and spin_briefly()
