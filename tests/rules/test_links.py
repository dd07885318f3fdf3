"""Links of the documentation lead somewhere, and to the names that they say."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.rules.source import ROOT

PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
LINK = re.compile(r"\[(?P<text>[^\]]*)\]\((?P<target>[^)#\s]+)(?:#[^)]*)?\)")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for text, target in LINK.findall(page.read_text(encoding="utf-8")):
        if "://" in target:
            continue
        path = (page.parent / target).resolve()
        assert path.exists(), f"{page.name} links to {target}, which is not there"
        if path.suffix == ".py" and text.startswith("`"):
            names = {getattr(node, "name", None) for node in ast.parse(path.read_text(encoding="utf-8")).body}
            assert text.strip("`") in names, f"{page.name}: {target} has no {text}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_are_named_are_there(page: Path) -> None:
    named = re.findall(
        r"`((?:tests|src|bench|recipes|docs|examples)/[\w./-]+)`", page.read_text(encoding="utf-8")
    )
    absent = sorted({name for name in named if not (ROOT / name).exists()})
    assert not absent, f"{page.name} names {', '.join(absent)}"
