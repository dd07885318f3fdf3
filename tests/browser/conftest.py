"""One server and one browser for all tests of the page; skipped where either is missing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.browser.serving import FLAGS, browser_path, serve

PATIENCE = 300_000
"""Milliseconds for whatever the page shows; a busy machine draws slowly."""


@pytest.fixture(scope="session")
def playwright() -> Any:
    """Playwright's driver; the browser is the machine's own."""
    api = pytest.importorskip("playwright.sync_api", reason="the page's tests need playwright: make browser")
    if browser_path() is None:
        pytest.skip("the page's tests need a Chromium: apt-get install chromium")
    api.expect.set_options(timeout=PATIENCE)
    return api


@pytest.fixture(scope="session")
def browser(playwright: Any) -> Iterator[Any]:
    """Chromium without a window."""
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=browser_path(), args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def address(playwright: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server that draws with Toybox."""
    with serve(tmp_path_factory.mktemp("server")) as (address, _):
        yield address


@pytest.fixture
def visit(playwright: Any, browser: Any, address: str) -> Iterator[Callable[..., Any]]:
    """Open the page as a newcomer; options are those of a browser context. At the end nothing may have gone wrong."""
    contexts, faults = [], []

    def open_page(place: str = address, key: str | None = None, **options: Any) -> Any:
        context = browser.new_context(**({"viewport": {"width": 1280, "height": 860}} | options))
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on(
            "console", lambda said: faults.append(said.text) if said.type in ("error", "warning") else None
        )
        page.faults = faults  # a test that breaks something on purpose clears them
        page.goto(place)
        if key is not None:
            page.fill("#key", key)
            page.keyboard.press("Enter")
        playwright.expect(page.locator("#server-state")).to_have_text("Ready")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert faults == []
