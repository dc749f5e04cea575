"""The report as a browser shows it: at the width of a phone and of a desk, light and dark."""

import html
import json
import re
import shutil
import subprocess
from typing import Any

import pytest
from report_evidence import classifier_evidence, detector_evidence

from mar_tools.reporting.page import render_report

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
WIDTHS = (360, 1280)
LEAST_CONTRAST = 4.5  # WCAG AA
# Measures each page in its frame, which the page itself cannot do: it runs no script.
MEASURE = """
const parse = text => (text.match(/[\\d.]+/g) || [0, 0, 0, 0]).map(Number);
const over = (above, below) => {
  const share = above.length > 3 ? above[3] : 1;
  return [0, 1, 2].map(i => above[i] * share + below[i] * (1 - share));
};
const light = colour => {
  const [r, g, b] = colour.map(c => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const behind = (page, element) => {
  const layers = [];
  for (let at = element; at; at = at.parentElement) layers.unshift(parse(page.getComputedStyle(at).backgroundColor));
  return layers.reduce((below, layer) => over(layer, below), [255, 255, 255]);
};
const contrast = (page, element) => {
  const style = page.getComputedStyle(element);
  const ink = parse(element instanceof page.SVGElement ? style.fill : style.color);
  const [low, high] = [light(over(ink, behind(page, element))), light(behind(page, element))].sort((a, b) => a - b);
  return (high + 0.05) / (low + 0.05);
};
const hasOwnText = element => [...element.childNodes].some(node => node.nodeType === 3 && node.textContent.trim());
const measure = frame => {
  const page = frame.contentWindow, all = [...page.document.body.querySelectorAll('*')];
  const words = all.filter(hasOwnText);
  return {
    name: frame.title,
    dark: page.matchMedia('(prefers-color-scheme: dark)').matches,
    tooWide: page.document.documentElement.scrollWidth - page.document.documentElement.clientWidth,
    pictures: [...page.document.images].map(image => image.complete && image.naturalWidth),
    faint: [...new Set(words.filter(word => contrast(page, word) < LEAST).map(word => word.outerHTML.slice(0, 90)))],
    stuck: all.filter(element => element.scrollWidth > element.clientWidth + 1 && element.tabIndex < 0
      && ['auto', 'scroll'].includes(page.getComputedStyle(element).overflowX)).map(element => element.className),
    loaded: page.performance.getEntriesByType('resource').map(entry => entry.name.slice(0, 40)),
  };
};
addEventListener('load', () => {
  const frames = [...document.querySelectorAll('iframe')];
  for (const image of frames.flatMap(frame => [...frame.contentDocument.images])) image.loading = 'eager';
  setTimeout(() => {
    const place = document.createElement('pre');
    place.textContent = JSON.stringify(frames.map(measure));
    document.body.replaceChildren(place);
  }, 300);
});
"""


def show_in_frames(pages: dict[str, str]) -> str:
    frames = "".join(
        f'<iframe title="{name} {width} {scheme}" style="color-scheme: {scheme}; width: {width}px; height: 700px" '
        f'srcdoc="{html.escape(page)}"></iframe>'
        for name, page in pages.items()
        for width in WIDTHS
        for scheme in ("light", "dark")
    )
    return (
        f"<!doctype html><meta charset=utf-8><script>{MEASURE.replace('LEAST', str(LEAST_CONTRAST))}</script>{frames}"
    )


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    if BROWSER is None:
        pytest.skip("no browser is installed: `apt-get install chromium` brings one")
    folder = tmp_path_factory.mktemp("browser")
    pages = {
        "classifier": render_report(classifier_evidence(folder / "classifier")),
        "detector": render_report(detector_evidence(folder / "detector")),
    }
    (folder / "frames.html").write_text(show_in_frames(pages), encoding="utf-8")
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}"]
    command += ["--virtual-time-budget=5000", "--dump-dom", (folder / "frames.html").as_uri()]
    finished = subprocess.run(
        command, capture_output=True, text=True, env={"HOME": str(folder), "PATH": "/usr/bin:/bin"}
    )
    found = re.search(r"<pre>(.*?)</pre>", finished.stdout, re.DOTALL)
    assert found is not None, finished.stderr[-2000:]
    frames: list[dict[str, Any]] = json.loads(html.unescape(found[1]))
    assert len(frames) == len(pages) * len(WIDTHS) * 2
    return frames


def test_nothing_is_wider_than_the_window(measured: list[dict[str, Any]]) -> None:
    """Of a phone too. What is wide scrolls in its own place."""
    assert [frame["name"] for frame in measured if frame["tooWide"]] == []


def test_every_picture_appears(measured: list[dict[str, Any]]) -> None:
    assert all(frame["pictures"] for frame in measured)
    assert [frame["name"] for frame in measured if not all(frame["pictures"])] == []


def test_all_text_is_readable_in_light_and_dark(measured: list[dict[str, Any]]) -> None:
    assert {frame["dark"] for frame in measured} == {True, False}
    assert {frame["name"]: frame["faint"] for frame in measured if frame["faint"]} == {}


def test_what_scrolls_can_be_scrolled_by_keyboard(measured: list[dict[str, Any]]) -> None:
    assert {frame["name"]: frame["stuck"] for frame in measured if frame["stuck"]} == {}


def test_the_browser_loads_nothing_from_outside(measured: list[dict[str, Any]]) -> None:
    places = [place for frame in measured for place in frame["loaded"]]
    assert [place for place in places if not place.startswith("data:")] == []
