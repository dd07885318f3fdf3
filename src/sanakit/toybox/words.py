"""The words that captions are made of: one table per kind, from a meaning to the ways to say it, the plain one first.

`wording` draws from these tables and `parsing` reads them backwards, so a way that is added here is written and read.
No two meanings share a way. Shapes stand in the singular; places and relations bring their prepositions.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from sanakit.toybox.grammar import NEXT_TO

Ways = Mapping[str, tuple[str, ...]]

SHAPE_WAYS: Ways = {
    "sphere": ("sphere", "ball", "orb", "globe"),
    "cube": ("cube", "block", "box", "brick"),
    "cylinder": ("cylinder", "can", "tube", "drum", "barrel"),
    "cone": ("cone", "funnel", "traffic cone", "party hat"),
    "pyramid": ("pyramid", "tent", "square pyramid"),
}
COLOUR_WAYS: Ways = {
    "red": ("red", "crimson", "scarlet", "ruby"),
    "orange": ("orange", "tangerine", "amber"),
    "yellow": ("yellow", "golden", "gold", "lemon"),
    "green": ("green", "emerald", "lime"),
    "cyan": ("cyan", "turquoise", "teal", "aqua"),
    "blue": ("blue", "navy", "azure", "cobalt"),
    "purple": ("purple", "violet", "lilac", "indigo"),
    "pink": ("pink", "magenta", "rose", "fuchsia"),
    "white": ("white", "ivory", "pearl"),
    "black": ("black", "ebony", "charcoal"),
}
MATERIAL_WAYS: Ways = {
    "rubber": ("rubber", "matte", "dull", "plastic"),
    "metal": ("metal", "shiny", "metallic", "chrome", "steel", "polished", "glossy"),
    "striped": ("striped", "stripy", "stripey"),
}
SIZE_WAYS: Ways = {
    "large": ("large", "big", "huge", "giant", "enormous"),
    "small": ("small", "little", "tiny", "mini"),
}
# Behind the shape: "a red ball made of metal".
MADE_OF: Ways = {
    "rubber": ("made of rubber", "made of plastic"),
    "metal": ("made of metal", "made of steel"),
    "striped": ("with stripes",),
}
SHADES = ("bright", "dark")  # before a colour; they change nothing

FLOOR_WAYS: Ways = {
    "grass": ("on grass", "on a lawn", "on the lawn", "on the grass", "in the grass", "in a meadow", "on a field"),
    "sand": ("on sand", "on a sandy beach", "on the beach", "at the beach", "on the sand", "in the desert"),
    "snow": ("on snow", "in the snow", "on snowy ground", "on the snow"),
    "wood": ("on wood", "on a wooden floor", "on a wooden table", "on a table", "on parquet", "on planks"),
    "tiles": ("on tiles", "on a tiled floor", "on a kitchen floor", "on a checkered floor", "on the tiles"),
    "water": ("on water", "on the sea", "on a lake", "in the water", "on the ocean", "floating on water", "on a pond"),
}  # fmt: skip
LIGHT_WAYS: Ways = {
    "noon": (
        "at noon", "in daylight", "at midday", "in sunlight", "on a sunny day", "in the sunshine", "during the day",
        "in the afternoon", "in the morning", "in the sun",
    ),
    "sunset": ("at sunset", "in evening light", "at dusk", "in the evening", "at dawn", "at sunrise", "at twilight"),
    "night": (
        "at night", "in moonlight", "at midnight", "under the stars", "in the dark", "under the moon",
        "in the moonlight", "under a starry sky",
    ),
    "overcast": (
        "under an overcast sky", "on a cloudy day", "in cloudy weather", "under clouds", "under a cloudy sky",
        "on a gloomy day", "on an overcast day",
    ),
}  # fmt: skip
# As keywords: "red cube, snow, night".
FLOOR_TAGS: Ways = {
    "grass": ("grass", "lawn", "meadow"),
    "sand": ("sand", "beach", "desert"),
    "snow": ("snow",),
    "wood": ("wood", "wooden floor"),
    "tiles": ("tiles", "tiled floor"),
    "water": ("water", "sea", "lake", "ocean"),
}
LIGHT_TAGS: Ways = {
    "noon": ("noon", "daylight", "sunny"),
    "sunset": ("sunset", "dusk", "evening"),
    "night": ("night", "midnight", "moonlight"),
    "overcast": ("overcast", "cloudy"),
}

RELATION_WAYS: Ways = {
    "left of": ("left of", "to the left of", "on the left of", "on the left side of"),
    "right of": ("right of", "to the right of", "on the right of", "on the right side of"),
    "in front of": ("in front of", "ahead of"),
    "behind": ("behind", "in back of"),
    NEXT_TO: ("next to", "beside", "alongside", "by the side of"),
}
# How the second of two things stands: "a cube with a cone on its right" is a cube left of a cone.
WITH_WAYS: Ways = {
    "left of": ("on its right", "to its right", "on the right"),
    "right of": ("on its left", "to its left", "on the left"),
    "in front of": ("behind it", "in back of it"),
    "behind": ("in front of it", "ahead of it"),
    NEXT_TO: ("next to it", "beside it", "at its side"),
}
TOGETHER = ("side by side", "next to each other")  # behind "a cube and a cone"

COUNT_WAYS: Mapping[int, tuple[str, ...]] = {
    1: ("a", "the", "one", "1", "a single"),
    2: ("two", "2", "a pair of", "a couple of"),
    3: ("three", "3"),
    4: ("four", "4"),
}
JOINS = ("and", "plus", "&", "together with", "along with")
OPENINGS = (
    "", "a picture of", "a scene with", "a photo of", "a photograph of", "an image of", "a drawing of", "a painting of",
    "a render of", "a view of", "draw", "draw me", "show", "show me", "paint", "make", "create", "generate",
    "please draw", "can you draw", "i want", "there is", "here is",
)  # fmt: skip
VERBS = ("is", "stands", "sits", "lies", "rests")
POSTURES = ("standing", "sitting", "lying", "resting", "placed")
ARTICLES = ("a", "an", "the")
_PLURAL_VERBS = {"is": "are", "stands": "stand", "sits": "sit", "lies": "lie", "rests": "rest"}


def several(phrase: str) -> str:
    """Return the form of a shape ("box") or of an opening or verb ("there is") for several things."""
    *words, last = phrase.split()
    if last in _PLURAL_VERBS:
        return " ".join([*words, _PLURAL_VERBS[last]])
    return f"{phrase}es" if phrase.endswith("x") else f"{phrase}s"


def fillers() -> frozenset[str]:
    """Words that only make a sentence whole: articles, and how things stand."""
    return frozenset((*ARTICLES, *VERBS, *POSTURES, *_PLURAL_VERBS.values()))


def all_words() -> frozenset[str]:
    """Return every word of every caption."""
    return frozenset(re.findall(r"\w+", " ".join(_phrases())))


def _phrases() -> Iterator[str]:
    tables = (
        SHAPE_WAYS, COLOUR_WAYS, MATERIAL_WAYS, SIZE_WAYS, MADE_OF, FLOOR_WAYS, LIGHT_WAYS, FLOOR_TAGS, LIGHT_TAGS,
        RELATION_WAYS, WITH_WAYS,
    )  # fmt: skip
    for table in tables:
        for ways in table.values():
            yield from ways
    for ways in COUNT_WAYS.values():
        yield from ways
    yield from (several(way) for ways in SHAPE_WAYS.values() for way in ways)
    yield from (*SHADES, *TOGETHER, *JOINS, *OPENINGS, *fillers(), "with")
