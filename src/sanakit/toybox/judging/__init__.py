"""The judge: reads objects, floor and light out of a picture of the Toybox world, and holds them to a prompt."""

from sanakit.toybox.judging.network import Judge, Maps
from sanakit.toybox.judging.reading import Found, Reading, read
from sanakit.toybox.judging.targets import Targets, targets_of
from sanakit.toybox.judging.verdict import Verdict, judge

__all__ = ["Found", "Judge", "Maps", "Reading", "Targets", "Verdict", "judge", "read", "targets_of"]
