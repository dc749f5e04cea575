"""Two data sets that need no download: digits written by hand, and letters of the fonts that matplotlib brings."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from examples.canvas import add_noise, draw_background, draw_clutter, to_uint8, write_ink
from examples.digits import Digits, load_digit_split, turn
from examples.digits_classification.images import draw_picture

MASTER_SIZE = 96
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
FONTS = (
    "DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSansMono", "DejaVuSansMono-Bold", "DejaVuSerif",
    "DejaVuSerif-Bold", "DejaVuSerif-BoldItalic", "STIXGeneral", "STIXGeneralBol", "STIXGeneralBolIta", "cmb10",
    "cmr10", "cmss10", "cmtt10",
)  # fmt: skip
NEW_FONTS = ("DejaVuSans-BoldOblique", "DejaVuSansMono-Oblique", "DejaVuSerif-Italic", "STIXGeneralItalic", "cmti10")
QUALITY = 88
PART_SEEDS = {"train": 5_000_011, "val": 6_000_011, "test": 7_000_003}  # far from those of the examples
Draw = Callable[[int, np.random.Generator], tuple[Image.Image, str]]  # number of a picture -> it, and its class


def draw_digits(folder: Path, counts: dict[str, int]) -> None:
    """Draw so many pictures a part. Digits of `test` were written by hand once, and never in the other parts."""
    known, new = load_digit_split()
    validated = len(known) // 6
    writers = {
        "train": Digits(known.masters[validated:], known.class_ids[validated:]),
        "val": Digits(known.masters[:validated], known.class_ids[:validated]),
        "test": new,
    }
    for part, count in counts.items():

        def draw(number: int, rng: np.random.Generator, digits: Digits = writers[part]) -> tuple[Image.Image, str]:
            index = number % len(digits)
            return draw_picture(digits.masters[index], rng), str(digits.class_ids[index])

        draw_part(folder / part, count, PART_SEEDS[part], draw)


def draw_letters(folder: Path, counts: dict[str, int]) -> None:
    """Draw so many pictures a part. The fonts of `test` are in no other part."""
    for part, count in counts.items():
        fonts = NEW_FONTS if part == "test" else FONTS

        def draw(number: int, rng: np.random.Generator, fonts: Sequence[str] = fonts) -> tuple[Image.Image, str]:
            letter = LETTERS[number % len(LETTERS)]
            return draw_letter(letter, fonts[int(rng.integers(len(fonts)))], rng), letter

        draw_part(folder / part, count, PART_SEEDS[part], draw)


def draw_letter(letter: str, font: str, rng: np.random.Generator) -> Image.Image:
    """Return one letter, turned and slanted a little, on a picture of 80 to 240 pixels."""
    ink = write_letter(letter, font)
    turned = turn(Image.fromarray(ink), rng)
    bounds = turned.getbbox()
    short = int(rng.integers(80, 181))
    long = short if rng.random() < 0.5 else int(short * rng.uniform(1, 1.34))
    canvas = draw_clutter(draw_background((short, long), rng), int(rng.integers(0, 4)), rng)
    cut = turned.crop(bounds)
    scale = short * rng.uniform(0.45, 0.9) / max(cut.size)
    size = (max(1, round(cut.width * scale)), max(1, round(cut.height * scale)))
    mask = np.asarray(cut.resize(size, Image.Resampling.LANCZOS), dtype=np.float32) / np.float32(255)
    top = int(rng.integers(0, short - mask.shape[0] + 1))
    left = (long - short) // 2 + int(rng.integers(0, short - mask.shape[1] + 1))
    write_ink(canvas, mask, left, top, rng)
    return Image.fromarray(to_uint8(add_noise(canvas, rng)))


def write_letter(letter: str, font: str) -> np.ndarray:
    """Return its ink: (96, 96) uint8, with a margin to turn it in."""
    import matplotlib

    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{font}.ttf"
    image = Image.new("L", (MASTER_SIZE, MASTER_SIZE))
    centre = (MASTER_SIZE // 2, MASTER_SIZE // 2)
    ImageDraw.Draw(image).text(centre, letter, 255, ImageFont.truetype(str(path), 60), anchor="mm")
    return np.asarray(image)


def draw_part(folder: Path, count: int, seed: int, draw: Draw) -> None:
    """Draw `count` pictures into folders of their classes, each the same in every run."""
    for number in range(count):
        picture, label = draw(number, np.random.default_rng([seed, number]))
        place = folder / label
        place.mkdir(parents=True, exist_ok=True)
        picture.save(place / f"{number:05}.jpg", quality=QUALITY)
