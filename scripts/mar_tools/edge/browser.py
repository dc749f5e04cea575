"""A folder's page in a real Chromium: its model as a backend, and the page as its user sees it."""

import base64
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import torch
from playwright.sync_api import Page, sync_playwright
from torch import Tensor

from mar_tools.edge.running import EdgeModel
from vision_serving.errors import BackendError, last_line

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
TYPES = {".mjs": "text/javascript", ".wasm": "application/wasm"}
WAIT_MS = 120_000  # of a busy machine
RUN = """async ([pixels, shape]) => {
    const bytes = Uint8Array.from(atob(pixels), each => each.charCodeAt(0));
    const found = {};
    for (const [name, {type, dims, data}] of Object.entries(await window.run(bytes, shape))) {
        const raw = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
        let text = "";
        for (const each of raw) text += String.fromCharCode(each);
        found[name] = {type, dims, data: btoa(text)};
    }
    return found;
}"""
PREDICT = """async picture => {
    const bytes = Uint8Array.from(atob(picture), each => each.charCodeAt(0));
    return window.predict(new Blob([bytes]));
}"""


class QuietHandler(SimpleHTTPRequestHandler):
    """Serves a folder, and says nothing of it."""

    def guess_type(self, path: Any) -> str:
        """Return the type of a file; Python's table lacks those of modules and WebAssembly."""
        return TYPES.get(Path(str(path)).suffix) or super().guess_type(path)

    def log_message(self, format: str, *args: Any) -> None:
        return None


@contextmanager
def serve_folder(folder: Path) -> Iterator[str]:
    """Serve a folder on this machine alone, and yield its address."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietHandler, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def open_page(folder: Path) -> Iterator[Page]:
    """Yield the page of a folder. Raises BackendError without Chromium."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        raise BackendError("format 'onnx-web' is verified in Chromium, which is missing: apt install chromium")
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []  # Chromium has none for root
    with serve_folder(folder) as address, sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=browser, args=sandbox)
        page = opened.new_page()
        page.set_default_timeout(WAIT_MS)
        page.goto(address)
        yield page
        opened.close()


@contextmanager
def open_browser(folder: Path, runtime: str) -> Iterator[EdgeModel]:
    """Yield the model of a folder as the page runs it. Raises BackendError where it does not."""
    picture = folder / "golden.png"
    if not picture.exists():  # the page shows it, and it comes last
        picture.write_bytes(EMPTY_PICTURE)
    with open_page(folder) as page:
        problems: list[str] = []
        page.on("pageerror", lambda error: problems.append(str(error)))

        def call(script: str, argument: Any) -> Any:
            try:
                page.wait_for_function("window.isReady")
                return page.evaluate(script, argument)
            except Exception as error:  # playwright's own kinds
                raise BackendError(f"the page failed: {last_line(error)} {' '.join(problems)}") from error

        def infer(pixels: Tensor) -> dict[str, Tensor]:
            found = call(RUN, [encode(pixels.numpy().tobytes()), list(pixels.shape)])
            return {name: decode(**value) for name, value in found.items()}

        version = page.context.browser.version if page.context.browser else "unknown"
        yield EdgeModel(
            infer, lambda path: dict(call(PREDICT, encode(path.read_bytes()))), f"{runtime} in Chromium {version}"
        )


def encode(content: bytes) -> str:
    return base64.b64encode(content).decode()


def decode(type: str, dims: list[int], data: str) -> Tensor:
    """Return an output as onnxruntime-web gives it."""
    return torch.from_numpy(np.frombuffer(base64.b64decode(data), np.dtype(type)).reshape(dims).copy())


EMPTY_PICTURE = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
