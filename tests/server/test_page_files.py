"""The page's files fit together: what one names, another has; nothing comes from another host or breaks the policy."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from sanakit.server.api.pages import router

FOLDER = Path(__file__).parents[2] / "src/sanakit/server/page"
HTML = (FOLDER / "index.html").read_text(encoding="utf-8")
MODULES = {path.name: path.read_text(encoding="utf-8") for path in sorted(FOLDER.glob("*.js"))}
STYLES = {path.name: path.read_text(encoding="utf-8") for path in sorted(FOLDER.glob("*.css"))}
LONGEST_LINE = 120


class Page(HTMLParser):
    """The tags of a page with their attributes, and the text inside of scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.inline = ""
        self._inside = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._inside = tag

    def handle_data(self, data):
        self.inline += data.strip() if self._inside in ("script", "style") else ""


PAGE = Page(HTML)


@pytest.fixture(scope="module")
def client():
    app = FastAPI()
    app.include_router(router)
    with TestClient(app) as client:
        yield client


def test_every_file_is_served_as_what_it_is(client: TestClient):
    kinds = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml", ".html": "text/html"}
    for path in FOLDER.iterdir():
        response = client.get(f"/page/{path.name}")
        assert response.content == path.read_bytes()
        assert response.headers["content-type"].startswith(kinds[path.suffix])
        tag = {"If-None-Match": response.headers["etag"]}
        assert client.get(f"/page/{path.name}", headers=tag).status_code == 304
    assert client.get("/").text == HTML


def test_the_files_are_part_of_the_package():
    project = (Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8")
    assert '"server/page/**"' in project


def test_what_is_imported_exists():
    for name, text in MODULES.items():
        found = re.findall(r'(?:from|import\()\s*"(.*?)"', text)
        assert all(other.removeprefix("./") in MODULES for other in found), f"{name}: {found}"
        exports = {
            (other, word)
            for words, other in re.findall(r'^import \{([^}]*)\} from "\./(.*?)"', text, re.MULTILINE)
            for word in re.findall(r"\w+", words)
        }
        for other, word in exports:
            pattern = rf"export (?:async )?(?:function\*? |const |class ){word}\b"
            assert re.search(pattern, MODULES[other]), f"{name} takes {word} from {other}"


def test_every_element_that_a_module_looks_for_is_there():
    ids = [attributes["id"] for _, attributes in PAGE.tags if attributes.get("id")]
    assert len(ids) == len(set(ids)), "an id is there twice"
    for name, text in MODULES.items():
        wanted = re.findall(r'\bfind\("([\w-]+)"\)', text)
        assert set(wanted) <= set(ids), f"{name}: {set(wanted) - set(ids)}"
        icons = re.findall(r'\bicon(?:\(|: )"([\w-]+)"', text)
        assert all(f"icon-{icon}" in ids for icon in icons), f"{name}: {icons}"


def test_labels_and_references_name_elements_that_exist():
    ids = {attributes.get("id") for _, attributes in PAGE.tags}
    for tag, attributes in PAGE.tags:
        for name in ("for", "aria-controls", "aria-labelledby", "aria-describedby"):
            assert attributes.get(name) is None or attributes[name] in ids, f"{tag} {name}={attributes[name]}"


def test_nothing_breaks_a_strict_policy_or_asks_another_host():
    assert PAGE.inline == ""
    for tag, attributes in PAGE.tags:
        assert not any(name == "style" or name.startswith("on") for name in attributes), tag
        for name in ("src", "href"):
            place = attributes.get(name)
            assert place is None or place.startswith(("/page/", "#")), f"{tag} {name}={place}"
    for name, text in {**MODULES, **STYLES}.items():
        addresses = set(re.findall(r"https?://[^\s\"')]+", text))
        known = {
            "http://www.w3.org/2000/svg",
            "https://html.spec.whatwg.org/multipage/server-sent-events.html",
        }
        assert addresses <= known, f"{name}: {addresses - known}"
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacent|document\.write|\beval\b|new Function|@import", text
        ), name


@pytest.mark.parametrize("name", sorted(MODULES))
def test_modules_say_what_they_are_and_stay_small(name: str):
    lines = MODULES[name].splitlines()
    assert lines[0].startswith("// ") and lines[0].endswith((".", ":"))
    assert len(lines) <= 300
    assert max(map(len, lines)) <= LONGEST_LINE, (
        f"line {max(range(len(lines)), key=lambda at: len(lines[at])) + 1}"
    )
    assert "console." not in MODULES[name] and "var " not in MODULES[name]
