"""The page in a real Chromium, before a real TorchServe with both examples."""

import io
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Thread
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from e2e.conftest import EXAMPLES, Service
from mar_tools.playground.page_server import PageServer

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
SCENE = EXAMPLES / "digits_detection" / "samples" / "scene_4.jpg"
SEVEN = EXAMPLES / "digits_classification" / "samples" / "seven.png"
DETECTOR, CLASSIFIER = "digits_detection", "digits"
WAIT_MS = 120_000  # of a busy machine; what works takes less than a second


@dataclass(frozen=True)
class Shown:
    """A page that is open, and what it complained of."""

    page: Page
    complaints: list[str]

    def choose(self, model: str, panel: int = 0) -> None:
        """Choose a model, and wait for its options."""
        known = {DETECTOR: "nms", CLASSIFIER: "top_k"}[model]
        self.page.locator(".model").nth(panel).select_option(label=model)
        self.page.locator(".panel").nth(panel).locator(f"[name={known}]").wait_for()

    def give(self, content: bytes, name: str = "picture.png") -> None:
        """Give a picture as a file, and wait until the page has an answer to it."""
        self.page.set_input_files("#file", {"name": name, "mimeType": "application/octet-stream", "buffer": content})
        self.page.locator("#picture-name", has_text=name).wait_for()
        self.settle()

    def settle(self) -> None:
        self.page.locator(".panel:not([aria-busy]) .status:not(:text('Choose'))").first.wait_for()

    def rows(self, panel: int = 0) -> list[tuple[str, str]]:
        """Return name and score of each result."""
        found = self.page.locator(".panel").nth(panel).locator(".row").all()
        return [(row.locator(".name").inner_text(), row.locator(".score").inner_text()) for row in found]

    def error(self) -> str:
        self.page.locator(".panel .error:visible").wait_for()
        return self.page.locator(".panel .error").inner_text()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """Ended with each file: while it is there, other tests of this process cannot run an event loop of their own."""
    if BROWSER is None:
        pytest.skip("Chromium is missing: apt install chromium")
    camera = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []  # Chromium has none for root
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=[*camera, *sandbox])
        yield browser
        browser.close()


@contextmanager
def show_pages(service: Service) -> Iterator[PageServer]:
    """Serve the page of a server's models, as open_playground.py does."""
    with PageServer(service.folder / "config.properties") as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(scope="session")
def page_server(service: Service) -> Iterator[PageServer]:
    with show_pages(service) as server:
        yield server


@pytest.fixture
def open_page(chromium: Browser) -> Iterator[Callable[..., Shown]]:
    """Open an address in a profile of its own. settings: of Playwright's new_context."""
    contexts = []

    def open_one(url: str, **settings: Any) -> Shown:
        contexts.append(chromium.new_context(**settings))
        page = contexts[-1].new_page()
        page.set_default_timeout(WAIT_MS)
        complaints: list[str] = []
        page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(url)
        return Shown(page, complaints)

    yield open_one
    for context in contexts:
        context.close()


@pytest.fixture
def shown(page_server: PageServer, open_page: Callable[..., Shown]) -> Shown:
    """The page on this machine, with the options of a model."""
    shown = open_page(page_server.url)
    shown.page.locator(".options label").first.wait_for()
    return shown


def encode(image: Image.Image, form: str = "PNG", **settings: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **settings)
    return buffer.getvalue()
