"""Tests of web pages need Playwright, a browser and the fetched pages; without them they are skipped, and counted."""

from __future__ import annotations

import importlib.util
import shutil

import pytest


def lacking() -> str | None:
    """Return what is missing for tests in a browser, or None."""
    if importlib.util.find_spec("playwright") is None:
        return "playwright is not installed (pip install 'polyathlon[gui]')"
    from polyathlon.envs.errors import UsageError
    from polyathlon.envs.gui.browser import PROGRAMS
    from polyathlon.envs.gui.page_files import pages_folder

    if not any(map(shutil.which, PROGRAMS)):
        return "there is no browser (apt-get install chromium)"
    try:
        pages_folder()
    except UsageError as error:
        return str(error)
    return None


LACKING = lacking()


def pytest_collection_modifyitems(items):
    for item in items:
        if LACKING is not None and item.get_closest_marker("browser"):
            item.add_marker(pytest.mark.skip(reason=LACKING))


@pytest.fixture(scope="session", autouse=True)
def close_browsers():
    yield
    if LACKING is None:
        from polyathlon.envs.gui.browser import Browser

        Browser.close_all()
