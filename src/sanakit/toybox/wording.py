"""What a caption says, in other words: synonyms, openings, orders and telegram style, as people type their prompts.

A phrasing is a pair of ways that one caption uses, neither of them the plain one: "draw" with "ball", "ball" with "on
the lawn". A share of all phrasings never occurs in training captions, though every word does: prompts in those
phrasings ask whether words were learnt, or only sentences.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import combinations

from sanakit.toybox import words as w
from sanakit.toybox.grammar import INVERSE_RELATION, NEXT_TO, GroupSpec, SceneSpec

HELD_OUT_SHARE = 0.03  # of all phrasings; captions have up to a dozen ways, and so some tens of phrasings
PLAIN = 0.5  # chance of the plain way, each time that there is a choice


@dataclass(frozen=True)
class Wording:
    """A text, and the ways in it that are not the plain ones, each named "kind: way"."""

    text: str
    ways: frozenset[str]

    @property
    def held_out(self) -> bool:
        """Whether the text is in a phrasing that no training caption has."""
        return any(map(_phrasing_held_out, combinations(sorted(self.ways), 2)))


def trained_wording(spec: SceneSpec, draw: random.Random) -> str:
    """Return what a spec says in other words, in phrasings for training."""
    while True:
        found = wording(spec, draw)
        if not found.held_out:
            return found.text


def wording(spec: SceneSpec, draw: random.Random) -> Wording:
    """Return what a spec says in other words, in any phrasing; `parsing.parse` reads the spec from the text."""
    pen = _Pen(draw)
    opening = pen.way("opening", w.OPENINGS)
    text = _placed(spec, pen, _things(spec, pen, alone=not opening), alone=not opening)
    if opening:
        text = f"{_agreeing(opening, spec.groups)} {text}"
    if pen.chance("telegram", 0.15):
        text = re.sub(rf"\b(?:{'|'.join(w.ARTICLES)}) ", "", text)
    return Wording(_punctuated(text, draw), frozenset(pen.ways))


@dataclass
class _Pen:
    """Draws ways, and remembers those that are not the plain ones."""

    draw: random.Random
    ways: set[str] = field(default_factory=set)

    def way(self, kind: str, ways: Sequence[str], plain: float = PLAIN) -> str:
        """One of the ways; the first is the plain one."""
        if len(ways) == 1 or self.draw.random() < plain:
            return ways[0]
        return self.note(kind, self.draw.choice(ways[1:]))

    def other(self, kind: str, ways: Sequence[str]) -> str:
        """One of the ways, none of which is the plain one."""
        return self.note(kind, self.draw.choice(ways))

    def chance(self, kind: str, chance: float) -> bool:
        """Return whether to build the sentence another way."""
        if self.draw.random() >= chance:
            return False
        self.note(kind, "yes")
        return True

    def note(self, kind: str, way: str) -> str:
        self.ways.add(f"{kind}: {way}")
        return way


def _phrasing_held_out(pair: Iterable[str]) -> bool:
    digest = hashlib.sha256("|".join(pair).encode()).digest()
    return int.from_bytes(digest[:4], "big") < HELD_OUT_SHARE * 2**32


def _things(spec: SceneSpec, pen: _Pen, alone: bool) -> str:
    """Return the groups and how they stand. alone: without an opening, so that it may be a sentence with a verb."""
    named = [_group(group, pen) for group in spec.groups]
    if spec.relation is not None:
        return _related(named[0], named[1], spec.relation, pen, alone)
    if len(named) == 1:
        return named[0]
    join = pen.way("join", w.JOINS, plain=0.7)
    return f"{', '.join(named[:-1])} {join} {named[-1]}"


def _related(first: str, second: str, relation: str, pen: _Pen, alone: bool) -> str:
    """Two things; the first is named first in every order."""
    if pen.draw.random() < 0.25:
        return f"{first} with {second} {pen.other('with', w.WITH_WAYS[relation])}"
    if relation == NEXT_TO and pen.draw.random() < 0.25:
        return f"{first} and {second} {pen.other('together', w.TOGETHER)}"
    if alone and pen.draw.random() < 0.15:
        front = pen.way("front", w.RELATION_WAYS[INVERSE_RELATION[relation]])
        return f"{front} {first} {pen.other('front verb', w.VERBS)} {second}"
    verb = f" {pen.other('verb', w.VERBS)}" if alone and pen.draw.random() < 0.2 else ""
    return f"{first}{verb} {pen.way('relation', w.RELATION_WAYS[relation])} {second}"


def _placed(spec: SceneSpec, pen: _Pen, things: str, alone: bool) -> str:
    """Return the things with floor and light: behind them, before them, or as keywords."""
    floor, light = spec.floor, spec.light
    if (floor or light) and pen.chance("keywords", 0.12):
        tags = [pen.other("floor tag", w.FLOOR_TAGS[floor])] if floor else []
        tags += [pen.other("light tag", w.LIGHT_TAGS[light])] if light else []
        return ", ".join([things, *tags])
    place = [pen.way("floor", w.FLOOR_WAYS[floor])] if floor else []
    place += [pen.way("light", w.LIGHT_WAYS[light])] if light else []
    pen.draw.shuffle(place)
    if place and alone and pen.chance("place first", 0.25):
        return f"{' '.join(place)}, {things}"
    if floor and spec.relation is None and pen.draw.random() < 0.2:
        posture = pen.other("posture", (*w.POSTURES, *w.VERBS) if alone else w.POSTURES)
        things += f" {w.several(posture) if posture in w.VERBS and spec.count > 1 else posture}"
    comma = "," if place and pen.chance("comma", 0.1) else ""
    return " ".join([things + comma, *place])


def _group(group: GroupSpec, pen: _Pen) -> str:
    """One group, such as "a huge shiny crimson ball"."""
    size = [pen.way("size", w.SIZE_WAYS[group.size])] if group.size else []
    colour = [_colour(group.colour, pen)] if group.colour else []
    material, made = _material(group.material, pen)
    words = [*size, *colour, *material]
    if len(words) > 1 and pen.chance("order", 0.15):
        pen.draw.shuffle(words)
    shape = pen.way("shape", w.SHAPE_WAYS[group.shape])
    words.append(shape if group.count == 1 else w.several(shape))
    if group.count > 1:
        number = pen.way("count", w.COUNT_WAYS[group.count])
    else:
        number = pen.way("article", w.COUNT_WAYS[1], plain=0.75)
    return " ".join([_article(words[0]) if number == "a" else number, *words, *made])


def _colour(colour: str, pen: _Pen) -> str:
    word = pen.way("colour", w.COLOUR_WAYS[colour])
    shaded = colour not in ("white", "black") and pen.draw.random() < 0.06
    return f"{pen.other('shade', w.SHADES)} {word}" if shaded else word


def _material(material: str | None, pen: _Pen) -> tuple[list[str], list[str]]:
    """Return the words for a material: before the shape, and behind it."""
    if material is None:
        return [], []
    if pen.draw.random() < 0.12:
        return [], [pen.other("made", w.MADE_OF[material])]
    return [pen.way("material", w.MATERIAL_WAYS[material])], []


def _article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"


def _agreeing(opening: str, groups: Sequence[GroupSpec]) -> str:
    return w.several(opening) if opening.endswith(" is") and groups[0].count > 1 else opening


def _punctuated(text: str, draw: random.Random) -> str:
    text = text[0].upper() + text[1:] if draw.random() < 0.3 else text
    return f"{text}." if draw.random() < 0.2 else text
