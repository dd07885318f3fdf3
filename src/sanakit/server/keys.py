"""API keys: made once, shown once, kept as hashes in a file of the data folder.

A key is 256 random bits, so one round of SHA-256 keeps it secret: there is nothing to guess, and no need for a slow
hash. Whoever changes the file, such as `sanakit keys remove`, changes it for a running server, too.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import secrets
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal, get_args

from sanakit.base.echo import quoted
from sanakit.base.errors import ConfigError, RequestError
from sanakit.base.files import atomic_write, for_owner
from sanakit.base.json_text import read_object
from sanakit.base.locks import hold
from sanakit.server.rates import check_rate

Scope = Literal["draw", "read", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
"""draw: draws, and sees what is its own. read: sees everything. admin: both, and changes the jobs of others."""

FILE = "keys.json"
PREFIX = "sk-sana-"  # by which scanners for leaked secrets can know one
_RANDOM_BYTES = 32
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_MOST_BYTES = 1 << 20  # of the file


@dataclass(frozen=True, kw_only=True)
class Key:
    """What is kept of a key.

    id: names it in jobs and logs. name: a person's word for it. sha256: of its text. scopes: what it may do.
    created: seconds since the epoch. rate: jobs that it may ask for, such as `60/minute`; None for the server's.
    """

    id: str
    name: str
    sha256: str
    scopes: tuple[Scope, ...]
    created: float
    rate: str | None = None

    def may(self, scope: Scope) -> bool:
        """Return whether it has a scope, or all of them."""
        return scope in self.scopes or "admin" in self.scopes


class KeyStore:
    """The keys of a data folder, read again when the file changes."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE
        self._stamp: tuple[int, int] | None = None
        self._keys: tuple[Key, ...] = ()

    def all(self) -> tuple[Key, ...]:
        """Return the keys in the order in which they were made. Raises ConfigError for a damaged file."""
        stamp = self._look()
        if stamp != self._stamp:
            self._keys, self._stamp = () if stamp is None else _read(self.path), stamp
        return self._keys

    def find(self, text: str) -> Key | None:
        """Return the key with this text. Every key is compared, in constant time each."""
        digest = _digest(text)
        found = [key for key in self.all() if hmac.compare_digest(key.sha256, digest)]
        return found[0] if found else None

    def by_id(self, key_id: str) -> Key | None:
        """Return the key with this id."""
        return next((key for key in self.all() if key.id == key_id), None)

    def add(self, name: str, scopes: Iterable[str], rate: str | None = None) -> tuple[str, Key]:
        """Make a key; return its text, which is not kept, and what is. Raises RequestError or OutputError."""
        text = PREFIX + secrets.token_urlsafe(_RANDOM_BYTES)
        key = Key(
            id=secrets.token_hex(8), name=_checked_name(name), sha256=_digest(text), scopes=_checked_scopes(scopes),
            created=time.time(), rate=None if rate is None else check_rate(rate),
        )  # fmt: skip
        with hold(self.path.with_suffix(".lock"), "changes keys", wait=5):
            keys = self.all()
            if any(each.name == name for each in keys):
                raise RequestError(
                    f"there is a key {quoted(name)} already: remove it first, or choose another name"
                )
            self._write((*keys, key))
        return text, key

    def remove(self, name: str) -> Key:
        """Remove the key of this name or id. Raises RequestError if there is none, or OutputError."""
        with hold(self.path.with_suffix(".lock"), "changes keys", wait=5):
            keys = self.all()
            found = [key for key in keys if name in (key.name, key.id)]
            if not found:
                raise RequestError(f"there is no key {quoted(name)}: `sanakit keys list` shows them")
            self._write(tuple(key for key in keys if key is not found[0]))
        return found[0]

    def _write(self, keys: tuple[Key, ...]) -> None:
        content = json.dumps({"keys": [asdict(key) for key in keys]}, indent=2) + "\n"
        atomic_write(self.path, for_owner(content.encode()))
        self._stamp = None

    def _look(self) -> tuple[int, int] | None:
        """When and as what the file was written; None if there is none."""
        try:
            found = self.path.stat()
        except FileNotFoundError:
            return None
        return found.st_mtime_ns, found.st_ino


def _read(path: Path) -> tuple[Key, ...]:
    try:
        rows = read_object(path, _MOST_BYTES)["keys"]
        keys = tuple(Key(**{**row, "scopes": _checked_scopes(row["scopes"])}) for row in rows)
        return tuple(replace(key, rate=key.rate and check_rate(key.rate)) for key in keys)
    except (ValueError, KeyError, TypeError, RequestError, OSError) as error:
        raise ConfigError(f"{path} holds no keys that can be read ({error}): make them anew") from None


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def _checked_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise RequestError(f"the name of a key is letters, digits, and . _ @ - in it, not {quoted(name)}")
    return name


def _checked_scopes(scopes: Iterable[str]) -> tuple[Scope, ...]:
    given = list(scopes)
    unknown = [scope for scope in given if scope not in SCOPES]
    if unknown or not given:
        raise RequestError(
            f"a key has scopes of {', '.join(SCOPES)}, not {quoted(unknown[0] if unknown else '')}"
        )
    return tuple(scope for scope in SCOPES if scope in given)
