"""What a server refuses on its own account: strangers, too many requests, too many bytes.

The engine's refusals are in `errors`; what is wrong with a request is `base.errors.RequestError`.
"""

from __future__ import annotations

from sanakit.base.errors import InputError, SanakitError


class NoKeyError(InputError):
    """A request brings no API key, or none that is known."""


class ScopeError(InputError):
    """A key that isn't for this."""


class OriginError(InputError):
    """A request under a name that isn't this server's, or for a page of another site."""


class RateError(InputError):
    """A key that asks too often. retry_after: seconds until it may ask again."""

    def __init__(self, message: str, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class JobFailedError(SanakitError):
    """A job that a client waits for failed; the message says why."""


class JobEndedError(InputError):
    """A job that a client waits for was cancelled, or waits for the next start of the server."""
