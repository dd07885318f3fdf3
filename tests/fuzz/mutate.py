"""Damage: edits of bytes, of text and of JSON, drawn from a seeded generator."""

from __future__ import annotations

import json
import math
import random
import struct
from collections.abc import Callable
from typing import Any

ODD: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 3, 2**31, 2**63, 10**30, -0.5, 0.3, 1e308, math.inf, -math.inf, math.nan, "", "x",
    "null", "../../etc/passwd", "\udcff", "\x1b[31m", "a" * 5000, [], [0], [[]], [1, 2], [5] * 6, [None] * 6,
    {}, {"a": 1}, {"_class_name": "x"},
)  # fmt: skip
_TOKENS = (
    b'"', b"{", b"}", b"[", b"]", b",", b":", b"9" * 30, b"-", b"\\", b"\x00", b"\xff\xfe", b"e999", b"\n", b"\r\n",
    b"\x1b[2J", b"\xed\xa0\x80", b"%s", b"null", b"NaN", b"(" * 50, b"[" * 2000, b"'", b"!!python/object:x ",
)  # fmt: skip
_NUMBERS = tuple(
    struct.pack(form, value)
    for form, values in (
        ("<B", (0, 127, 255)), ("<H", (0, 65535)), (">H", (65535,)), ("<I", (0, 2**31, 2**32 - 1)),
        (">I", (0, 2**31, 2**32 - 1)), ("<Q", (0, 2**63, 2**64 - 1)),
    )
    for value in values
)  # fmt: skip


def damage_bytes(content: bytes, rng: random.Random) -> bytes:
    """One to four edits, half of them near the beginning, where heads lie."""
    data = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        limit = min(len(data), 400) if rng.random() < 0.5 else len(data)
        at = rng.randrange(max(limit, 1))
        match rng.randrange(7):
            case 0 if data:
                data[at % len(data)] ^= 1 << rng.randrange(8)
            case 1:
                del data[at : at + rng.randint(1, 40)]
            case 2:
                data[at:at] = data[at : at + rng.randint(1, 200)]
            case 3:
                number = rng.choice(_NUMBERS)
                data[at : at + len(number)] = number
            case 4:
                data[at:at] = rng.choice(_TOKENS)
            case 5:
                other = rng.randrange(max(len(data), 1))
                data[at : at + 30] = data[other : other + 30]
            case _:
                del data[at if rng.random() < 0.5 else len(data) - min(at, 100) :]
    return bytes(data)


def damage_json(content: bytes, rng: random.Random) -> bytes:
    """Mostly one value of the tree replaced, removed, doubled or renamed; sometimes the bytes."""
    if rng.random() < 0.25:
        return damage_bytes(content, rng)
    try:
        tree = json.loads(content)
    except ValueError:
        return damage_bytes(content, rng)
    for _ in range(rng.choice((1, 1, 2))):
        tree = _damage_tree(tree, rng)
    return json.dumps(tree).encode("utf-8", "surrogatepass")


def damage_lines(content: bytes, rng: random.Random) -> bytes:
    """Lines of JSON or text: one of them damaged, doubled, dropped or moved; sometimes the bytes."""
    lines = content.split(b"\n")
    at = rng.randrange(len(lines))
    match rng.randrange(5):
        case 0:
            lines[at] = damage_json(lines[at], rng)
        case 1:
            lines.insert(at, lines[rng.randrange(len(lines))])
        case 2:
            del lines[at]
        case 3:
            lines[at] = lines[at].replace(b":", rng.choice(_TOKENS), 1)
        case _:
            return damage_bytes(content, rng)
    return b"\n".join(lines)


def _damage_tree(tree: Any, rng: random.Random) -> Any:
    """One step down at a time, with growing odds to stop."""
    if not isinstance(tree, dict | list) or not tree or rng.random() < 0.15:
        return rng.choice(ODD)
    if isinstance(tree, list):
        at = rng.randrange(len(tree))
        action = rng.randrange(3)
        if action == 0:
            return [*tree[:at], *tree[at + 1 :]]
        return [*tree[:at], *([tree[at]] * (action == 1)), _damage_tree(tree[at], rng), *tree[at + 1 :]]
    key = rng.choice(list(tree))
    match rng.randrange(6):
        case 0:
            return {name: value for name, value in tree.items() if name != key}
        case 1:
            return {**tree, rng.choice(("surplus", "__proto__", "", "_x" * 400, key + " ")): rng.choice(ODD)}
        case 2:
            return {**tree, key: rng.choice(ODD)}
        case _:
            return {**tree, key: _damage_tree(tree[key], rng)}


Damage = Callable[[bytes, random.Random], bytes]
