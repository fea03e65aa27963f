"""Fixtures for pages: a browser, and pages opened in it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Callable

import pytest

from tests.io.browser import BROWSER, FLAGS, Visit


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    sync_api = pytest.importorskip("playwright.sync_api")  # 130 MB with its browser
    if BROWSER is None:
        pytest.skip("no Chromium")
    with sync_api.sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=BROWSER, args=list(FLAGS))
        yield chromium
        chromium.close()


@pytest.fixture
def visit(browser: object) -> Iterator[Callable[..., Visit]]:
    opened: list[Visit] = []

    def open_page(path: Path, **context: object) -> Visit:
        opened.append(Visit(browser, path, **context))
        return opened[-1]

    yield open_page
    for one in opened:
        one.context.close()
