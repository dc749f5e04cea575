"""Pictures that these models know something of: photographs, pages and lines of text, puzzles."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont
import skimage.data
from sklearn.datasets import load_sample_images

from lab.published.models import Pictures

TURNS = (0, 90, 180, 270)
WORDS = ("the", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog", "while", "nobody", "reads", "by", "hand")


def load(name: str) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return a picture of scikit-image."""
    return np.asarray(getattr(skimage.data, name)())


def samples() -> list[np.ndarray[Any, np.dtype[np.uint8]]]:
    return list(load_sample_images().images)


def write_pictures(kind: Pictures, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, picture in enumerate(
        {"photographs": photographs, "pages": pages, "lines": lines, "puzzles": puzzles, "papers": papers}[kind]()
    ):
        picture.convert("RGB").save(folder / f"{number:02}.png")


def photographs() -> Iterator[PIL.Image.Image]:
    """Whole, and the half of each that has most of its middle."""
    for array in (load("astronaut"), load("coffee"), load("cat"), *samples()):
        picture = PIL.Image.fromarray(array)
        yield picture
        yield picture.crop((picture.width // 8, 0, picture.width * 7 // 8, picture.height * 3 // 5))
        yield picture.crop((picture.width // 4, 0, picture.width * 5 // 8, picture.height // 2))


def pages() -> Iterator[PIL.Image.Image]:
    page = PIL.Image.fromarray(load("page"))
    for part in (page, page.crop((0, 0, 384, 120)), page.resize((768, 382))):
        yield from (part.rotate(turn, expand=True) for turn in TURNS)


def lines() -> Iterator[PIL.Image.Image]:
    page = PIL.Image.fromarray(load("page"))
    for top in range(0, 160, 20):
        line = page.crop((0, top, 192, top + 24)).resize((768, 96))
        yield line
        yield line.rotate(180)


def puzzles() -> Iterator[PIL.Image.Image]:
    """Photographs with a piece that is missing, darker than the rest, as sliders of captchas have it."""
    generator = np.random.default_rng(0)
    for array in (load("coffee"), load("cat"), load("rocket"), *samples()):
        for _ in range(2):
            picture = np.asarray(PIL.Image.fromarray(array).resize((320, 160))).copy()
            x, y, side = int(generator.integers(120, 250)), int(generator.integers(20, 100)), 44
            picture[y : y + side, x : x + side] //= 3
            picture[y : y + side, 10 : 10 + side] = np.asarray(PIL.Image.fromarray(array).resize((320, 160)))[
                y : y + side, x : x + side
            ]
            yield PIL.Image.fromarray(picture)


def papers() -> Iterator[PIL.Image.Image]:
    """Pages of two columns of text, a title, and a photograph with its caption, in two sizes."""
    generator = np.random.default_rng(0)
    for name in ("coffee", "cat", "astronaut", "rocket"):
        for scale in (1.0, 1.55):
            page = PIL.Image.new("RGB", (round(800 * scale), round(1100 * scale)), "white")
            draw = PIL.ImageDraw.Draw(page)
            title, small = (PIL.ImageFont.load_default(size * scale) for size in (30, 14))
            draw.text((120 * scale, 60 * scale), _words(generator, 5).title(), "black", title)
            for left, top, width, rows in ((80, 140, 300, 16), (430, 140, 290, 16), (80, 830, 640, 12)):
                text = "\n".join(_words(generator, round(width / 36)) for _ in range(rows))
                draw.multiline_text((left * scale, top * scale), text, "black", small, spacing=5 * scale)
            photograph = PIL.Image.fromarray(load(name)).resize((round(480 * scale), round(300 * scale)))
            page.paste(photograph, (round(160 * scale), round(470 * scale)))
            draw.text((200 * scale, 780 * scale), f"Figure 1. {_words(generator, 6)}", "black", small)
            yield page


def _words(generator: np.random.Generator, count: int) -> str:
    return " ".join(generator.choice(WORDS, count))
