"""Debian's Chromium, without a window, watched for errors and for what it asks the network."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright


@dataclass
class Watched:
    """A page, and what it complained about and asked for."""

    page: Page
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    @property
    def is_wider_than_the_window(self) -> bool:
        """The page scrolls sideways."""
        return self.page.evaluate("document.documentElement.scrollWidth > window.innerWidth")


def chromium() -> str:
    """Path of the program; without it a test is skipped, or fails where ``CI`` is set."""
    found = shutil.which("chromium")
    if found is None:
        reason = "pages are tested in Chromium, and none is on the PATH: apt-get install chromium"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return found


@contextmanager
def launched() -> Iterator[Browser]:
    """Start the browser; only one at a time."""
    with sync_playwright() as driver:
        # Chromium's own sandbox does not work for root, nor in many containers.
        browser = driver.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def opened(browser: Browser, file: Path) -> Iterator[Watched]:
    """Open a page from disk, 1280 pixels wide."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    watched = Watched(page)
    page.on("console", lambda said: watched.complaints.append(said.text))
    page.on("pageerror", lambda error: watched.complaints.append(str(error)))
    page.on("request", lambda request: watched.requests.append(request.url))
    page.on("dialog", lambda dialog: watched.complaints.append(dialog.message))
    page.goto(file.as_uri())
    page.wait_for_selector("body[data-ready]")
    yield watched
    page.close()
