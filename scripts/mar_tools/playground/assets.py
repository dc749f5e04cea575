"""The files of the page, by the path under which a browser asks for them. The front serves the same files."""

import re
from dataclasses import dataclass
from pathlib import Path

import orjson
import yaml

from mar_tools.command_line import ROOT

SOURCE = ROOT / "deploy" / "playground"
EXAMPLES = ROOT / "examples"
DESCRIPTION = ROOT / "docs" / "use" / "openapi.yaml"
PAGES = {"/": "index.html", "/docs": "docs.html"}
# Nothing of another host, nothing inline, no frame around it. The pictures of the page's own memory are blobs.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".jpg": "image/jpeg",
}
FILE = re.compile(r"/playground/([a-z_]+\.(?:js|css|svg))")
SAMPLE = re.compile(r"/playground/samples/(digits_classification|digits_detection)/(\w+\.(?:png|jpg))")


@dataclass(frozen=True)
class Asset:
    """What a browser gets: the bytes, and their type."""

    content: bytes
    content_type: str


def find_asset(path: str) -> Asset | None:
    """Return the page, file or sample picture of a path such as `/playground/app.js`, None where there is none."""
    file = _find_file(path)
    if file is None or not file.is_file():
        return None
    return Asset(file.read_bytes(), TYPES[file.suffix])


def _find_file(path: str) -> Path | None:
    if path in PAGES:
        return SOURCE / PAGES[path]
    if found := FILE.fullmatch(path):
        return SOURCE / found[1]
    if found := SAMPLE.fullmatch(path):
        return EXAMPLES / found[1] / "samples" / found[2]
    return None


def describe_routes() -> bytes:
    """Return the OpenAPI description as JSON, which a browser reads without a library."""
    return orjson.dumps(yaml.safe_load(DESCRIPTION.read_text(encoding="utf-8")))
