"""A browser, where the machine has one, and what a page did in it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Literal

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

_NAMES = ("chromium", "chromium-browser", "google-chrome")
_ARGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
Scheme = Literal["light", "dark"]
Opened = Callable[..., AbstractContextManager[Page]]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium of the machine. Not of the session: while it is open, no test has an event loop of its own."""
    path = next((path for name in _NAMES if (path := shutil.which(name))), None)
    if path is None:
        pytest.skip("no Chromium; install it with: apt-get install chromium")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=_ARGS)
        yield chromium
        chromium.close()


@pytest.fixture
def opened(browser: Browser) -> Opened:
    """Open a file, drawn once; on leaving, it has logged no error and sent no other request."""

    @contextmanager
    def start(
        path: Path, width: int = 1400, scheme: Scheme = "light", at: str = "", model: str = "demo"
    ) -> Iterator[Page]:
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        page = context.new_page()
        page.set_default_timeout(15_000)
        events: list[str] = []
        page.on("console", lambda one: events.append(f"{one.type}: {one.text}") if one.type != "log" else None)
        page.on("pageerror", lambda error: events.append(f"error: {error}"))
        page.on("request", lambda one: events.append(f"request: {one.url.partition('#')[0]}"))
        try:
            page.goto(f"{path.as_uri()}{at.replace('#', f'#model={model}&') if at else f'#model={model}'}")
            page.wait_for_selector("body[data-drawn], #none:not([hidden])")
            yield page
        finally:
            context.close()
        expected = (f"request: {path.as_uri()}", "request: data:,")
        assert [event for event in events if event not in expected] == []

    return start
