"""What an engine refuses beside bad requests: a job when the queue is full, an id that nothing has; why jobs fail."""

from __future__ import annotations

from sanakit.base.errors import InputError, SanakitError
from sanakit.base.memory import ADVICE, is_shortage


class QueueFullError(InputError):
    """The queue holds as many jobs as it may. retry_after: seconds until there is likely to be a place."""

    def __init__(self, message: str, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class JobNotFoundError(InputError):
    """No job of this owner has that id."""


class PictureNotFoundError(InputError):
    """No picture has that id."""


def reason(error: Exception) -> str:
    """Return why a job failed, one sentence."""
    if isinstance(error, SanakitError):
        return str(error)
    if is_shortage(error):
        return f"not enough memory: {ADVICE}"
    return f"unexpected {type(error).__name__}: {error}"
