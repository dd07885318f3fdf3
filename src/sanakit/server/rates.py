"""How many jobs a key may ask for, by the `limits` library: a moving window for each key, in memory."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from sanakit.base.echo import quoted
from sanakit.base.errors import RequestError
from sanakit.server.refusals import RateError

if TYPE_CHECKING:
    from limits import RateLimitItem


class Rates:
    """The jobs that each key has asked for of late."""

    def __init__(self) -> None:
        from limits.storage import MemoryStorage
        from limits.strategies import MovingWindowRateLimiter

        self._limiter = MovingWindowRateLimiter(MemoryStorage())

    def take(self, owner: str, rate: str | None, jobs: int = 1) -> None:
        """Count jobs of a key. rate: such as `60/minute`, None for any number. Raises RateError, and counts none."""
        if rate is None:
            return
        limit = _parse(rate)
        if jobs > limit.amount:
            raise RateError(
                f"{jobs} jobs at once are more than this key may ask for: {rate}", limit.get_expiry()
            )
        if not self._limiter.hit(limit, owner, cost=jobs):
            reset = self._limiter.get_window_stats(limit, owner).reset_time
            raise RateError(
                f"this key may ask for {rate} jobs: try again later", max(reset - time.time(), 1.0)
            )


def check_rate(rate: str) -> str:
    """Return a rate that can be read, such as `60/minute`. Raises RequestError."""
    _parse(rate)
    return rate


def _parse(rate: str) -> RateLimitItem:
    from limits import parse

    try:
        return parse(rate)
    except ValueError:
        raise RequestError(f"a rate looks like 60/minute or 1000/day, not {quoted(rate)}") from None
