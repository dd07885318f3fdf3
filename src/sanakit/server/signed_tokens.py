"""Signed tokens, `SUBJECT.EXPIRES.SIGNATURE`: what lets a picture be fetched where no key can be sent.

A browser's <img> sends cookies alone, and whoever follows a link sends nothing. So a cookie names a key, and a link its
picture: each until a time, and signed by HMAC-SHA256 (RFC 2104) with a secret of the data folder.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from functools import cached_property
from pathlib import Path
from typing import Literal

from sanakit.base.errors import ConfigError
from sanakit.base.files import for_owner, write_if_new

FILE = "secret"
_BYTES = 32

Purpose = Literal["cookie", "link"]
"""A part of what is signed, so that a token of one purpose is none of the other."""


class SignedTokens:
    """Makes and reads tokens. folder: of the secret, which is made when it is first needed, and stays."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE

    def make(self, purpose: Purpose, subject: str, seconds: int) -> str:
        """Return a token about a subject, valid for so many seconds. Raises OutputError or ConfigError."""
        text = f"{subject}.{int(time.time()) + seconds}"
        return f"{text}.{self._sign(purpose, text)}"

    def read(self, purpose: Purpose, token: str) -> str | None:
        """Return the subject of a token; None if it wasn't made here for this purpose, or has expired.

        Raises OutputError or ConfigError.
        """
        text, _, signature = token.rpartition(".")
        if not hmac.compare_digest(self._sign(purpose, text).encode(), signature.encode("utf-8", "replace")):
            return None
        subject, _, expires = text.rpartition(".")
        return subject if time.time() < int(expires) else None

    def _sign(self, purpose: Purpose, text: str) -> str:
        message = f"{purpose}.{text}".encode("utf-8", "replace")
        return hmac.new(self._secret, message, hashlib.sha256).hexdigest()

    @cached_property
    def _secret(self) -> bytes:
        write_if_new(self._path, for_owner(secrets.token_bytes(_BYTES)))
        found = self._path.read_bytes()
        if len(found) != _BYTES:
            raise ConfigError(f"{self._path} is damaged: delete it, and start again")
        return found
