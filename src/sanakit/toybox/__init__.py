"""Toybox: a small world of solids on floors, described by captions and drawn by a ray caster.

The model that ships with sanakit was trained on it, from nothing; its weights are in `model/`.
"""

from sanakit.toybox.captions import caption, captions, full_spec, phrase
from sanakit.toybox.grammar import GroupSpec, Scene, SceneObject, SceneSpec, groups_of, is_held_out
from sanakit.toybox.parsing import parse
from sanakit.toybox.render import render
from sanakit.toybox.sampling import is_clear, relation_between, sample_scene

__all__ = [
    "GroupSpec",
    "Scene",
    "SceneObject",
    "SceneSpec",
    "caption",
    "captions",
    "full_spec",
    "groups_of",
    "is_clear",
    "is_held_out",
    "parse",
    "phrase",
    "relation_between",
    "render",
    "sample_scene",
]
