"""A browser tab to look at pages with."""

from __future__ import annotations

from collections.abc import Iterator

import browser
import pytest


@pytest.fixture(scope="session")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[browser.Page]:
    program = browser.browser_program()
    if program is None:
        pytest.skip("no browser: install chromium, or name one in BROWSER_PROGRAM")
    with browser.open_page(program, tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture(params=[1280, 390], ids=["desktop", "phone"])
def width(request: pytest.FixtureRequest) -> int:
    return int(request.param)
