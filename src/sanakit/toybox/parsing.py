"""Captions and prompts into what they say: reads every phrasing of `captions` and `wording`, and many between them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cache

from sanakit.base.errors import RequestError
from sanakit.toybox import words as w
from sanakit.toybox.grammar import INVERSE_RELATION, NEXT_TO, GroupSpec, SceneSpec

_FILLERS = w.fillers()


def parse(text: str) -> SceneSpec:
    """Return what a caption says, whatever its words, order, capitals and articles.

    Raises:
        RequestError: if a part of the text is not in the grammar.
    """
    rest = _without_openings(_bared(text))
    rest, floor = _take(rest, "FLOOR_WAYS")
    rest, light = _take(rest, "LIGHT_WAYS")
    rest = _without_openings(rest.strip(" ,"))  # those behind the place: "on grass, a picture of a cube"
    parts = [part for part in re.split(r"\s*,\s*", rest) if part]
    floor = floor or _take_tag(parts, _meanings("FLOOR_TAGS"))
    light = light or _take_tag(parts, _meanings("LIGHT_TAGS"))
    groups, relation = _related(", ".join(parts))
    return SceneSpec(groups=groups, relation=relation, floor=floor, light=light)


def _bared(text: str) -> str:
    """Lower case, single spaces, no full stop, none of the words that only make a sentence whole."""
    words = re.findall(r"[^\W_]+|[,&]", text.lower())
    return " ".join(word for word in words if word not in _FILLERS)


def _without_openings(text: str) -> str:
    """Remove openings, which may follow each other: "draw a picture of a cube"."""
    return _openings().sub("", text)


@cache
def _openings() -> re.Pattern[str]:
    known = "|".join(_longest_first(filter(None, map(_bared, w.OPENINGS))))
    return re.compile(rf"^(?:(?:{known})(?:\s+|$))*")


@cache
def _meanings(table: str) -> Mapping[str, str]:
    """Bared phrase -> meaning, the longest phrases first, of a table of `words`."""
    ways: w.Ways = getattr(w, table)
    known = {_bared(way): meaning for meaning, phrases in ways.items() for way in phrases}
    return {way: known[way] for way in _longest_first(known)}


@cache
def _pattern(table: str) -> re.Pattern[str]:
    """Any phrase of a table of `words`; of those that begin at one place the longest."""
    return re.compile(rf"(?<!\w)(?:{'|'.join(_meanings(table))})(?!\w)")


def _longest_first(phrases: Iterable[str]) -> list[str]:
    return sorted(phrases, key=len, reverse=True)


def _take(text: str, table: str) -> tuple[str, str | None]:
    """Return the text without the first phrase of a table of `words`, and what that phrase means."""
    found = _pattern(table).search(text)
    if found is None:
        return text, None
    rest = f"{text[: found.start()].strip()} {text[found.end() :].strip()}"
    return rest.strip(), _meanings(table)[found[0]]


def _take_tag(parts: list[str], known: Mapping[str, str]) -> str | None:
    """Return the meaning of the first keyword among the parts, which is taken out."""
    for part in parts:
        if part in known:
            parts.remove(part)
            return known[part]
    return None


def _related(text: str) -> tuple[tuple[GroupSpec, ...], str | None]:
    """Return the groups that a text names, and the relation of the first to the second."""
    text = _simplified(text)
    for way in w.TOGETHER:
        if text.endswith(f" {way}"):
            return _groups(text.removesuffix(f" {way}")), NEXT_TO
    for way, relation in _meanings("WITH_WAYS").items():
        if " with " in text and text.endswith(f" {way}"):
            first, second = text.removesuffix(f" {way}").split(" with ", 1)
            return (_group(first), _group(second)), relation
    for way, relation in _meanings("RELATION_WAYS").items():
        if text.startswith(f"{way} "):
            return _fronted(text.removeprefix(f"{way} ")), INVERSE_RELATION[relation]
        sides = text.split(f" {way} ")
        if len(sides) == 2:
            return (_group(sides[0]), _group(sides[1])), relation
    return _groups(text), None


def _simplified(text: str) -> str:
    """Things in single words: "party hat with stripes" is "striped cone", "pair of" is "two"."""
    known, materials = _long_ways(), _meanings("MADE_OF")
    text = re.sub(rf"(?<!\w)(?:{'|'.join(known)})(?!\w)", lambda found: known[found[0]], text)
    made = re.compile(rf"(\w+) ({'|'.join(materials)})(?!\w)")
    return made.sub(lambda found: f"{materials[found[2]]} {found[1]}", text)


@cache
def _long_ways() -> Mapping[str, str]:
    """Ways of several words -> one word."""
    shapes = {way: shape for shape, ways in w.SHAPE_WAYS.items() for way in ways}
    known = {w.several(way): w.several(shape) for way, shape in shapes.items()} | shapes
    known |= {_bared(way): ways[0] for count, ways in w.COUNT_WAYS.items() if count > 1 for way in ways}
    return {way: known[way] for way in _longest_first(known) if " " in way}


def _fronted(text: str) -> tuple[GroupSpec, ...]:
    """Return the two things behind "to the left of": the first ends with its shape ("a red cube is a blue ball")."""
    words = text.replace(",", "").split()
    ends = [place for place, word in enumerate(words, start=1) if "shape" in _word_table().get(word, {})]
    first = ends[0] if ends else 0
    return _group(" ".join(words[:first])), _group(" ".join(words[first:]))


def _groups(text: str) -> tuple[GroupSpec, ...]:
    joins = "|".join(_longest_first(w.JOINS))
    return tuple(_group(part) for part in re.split(rf",| (?:{joins}) ", text))


def _group(text: str) -> GroupSpec:
    """One group from its words, in any order."""
    said: dict[str, str] = {}
    for word in text.split():
        meaning = _word_table().get(word, {"unknown": word})
        if "unknown" in meaning or not said.keys().isdisjoint(meaning):
            raise _stranger(text)
        said |= meaning
    said.pop("shade", None)
    several, count = said.pop("several", None), said.pop("count", None)
    if "shape" not in said or (several and count is None) or (several and count == "1"):
        raise _stranger(text)
    return GroupSpec(count=int(count or 1), **said)


def _stranger(text: str) -> RequestError:
    return RequestError(
        f"{text!r} is not a thing of the Toybox world; say for example 'a large red metal sphere'"
    )


@cache
def _word_table() -> Mapping[str, Mapping[str, str]]:
    """Word of a group -> what it says."""
    table: dict[str, Mapping[str, str]] = {shade: {"shade": shade} for shade in w.SHADES}
    for kind in ("size", "colour", "material", "shape"):
        table |= {way: {kind: meaning} for way, meaning in _meanings(f"{kind.upper()}_WAYS").items()}
    for shape, shapes in w.SHAPE_WAYS.items():
        table |= {w.several(way): {"shape": shape, "several": "yes"} for way in shapes}
    for count, numbers in w.COUNT_WAYS.items():
        table |= {_bared(way): {"count": str(count)} for way in numbers if _bared(way)}
    return table
