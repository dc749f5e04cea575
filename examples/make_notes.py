"""Lay handwritten notes on a photograph of a coffee cup, and let the digits detector read them.

From the repository's root, after scripts/quickstart.sh has built the archive:

    pip install -c constraints.txt -r requirements/dev.txt
    python examples/make_notes.py model_store/digits_detection.mar

Writes notes.jpg (the picture), annotated.jpg (the same with what was found drawn on it) and answer.json (the answer)
into examples/notes. The photograph is scikit-image's coffee.png; the digits are test digits, never seen in training.
"""

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from examples.digits import Digits, FloatArray, draw_ink, load_digit_split
from examples.make_photographs import open_scene
from mar_tools.predicting.predictors import predict_in_process, read_prediction
from vision_serving.answers.drawing import draw_prediction

FOLDER = Path(__file__).resolve().parent / "notes"
SIZE = (1200, 800)
QUALITY = 85
OPTIONS = {"tile_size": "400", "score_threshold": "0.8"}  # one pass sees the digits too small beside the cup
MARGIN = 64
GAP = 34
SHADOW = 14


@dataclass(frozen=True)
class Note:
    """centre: in pixels of the picture. angle: degrees, counter-clockwise. height: of a digit, in pixels."""

    text: str
    centre: tuple[int, int]
    angle: float
    height: int
    paper: tuple[int, int, int]
    ink: tuple[int, int, int]
    seed: int


YELLOW, WHITE, BLUE = (250, 226, 120), (246, 243, 235), (190, 222, 240)
NAVY, BLACK, RED = (28, 36, 92), (30, 30, 34), (150, 24, 30)
NOTES = (
    Note("24", (150, 240), 8, 120, YELLOW, NAVY, 1),
    Note("6", (125, 650), -7, 145, BLUE, BLACK, 2),
    Note("1835", (940, 665), 5, 118, WHITE, NAVY, 3),
    Note("70", (1035, 140), -9, 125, YELLOW, RED, 4),
    Note("9", (1085, 420), 6, 135, BLUE, NAVY, 5),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archive", type=Path)
    parser.add_argument("--output", type=Path, default=FOLDER, help="folder to write (default: examples/notes)")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    picture = arguments.output / "notes.jpg"
    draw_notes().save(picture, quality=QUALITY, optimize=True)
    with predict_in_process(arguments.archive, OPTIONS) as predict:
        answer = predict(picture.read_bytes())
    (arguments.output / "answer.json").write_text(json.dumps(answer) + "\n", encoding="utf-8")
    annotated = draw_prediction(Image.open(picture).convert("RGB"), read_prediction(answer))
    annotated.save(arguments.output / "annotated.jpg", quality=QUALITY, optimize=True)


def draw_notes() -> Image.Image:
    table = open_scene("skimage", "data/coffee.png").resize(SIZE, Image.Resampling.LANCZOS)
    _, digits = load_digit_split()
    for note in NOTES:
        lay_down(table, write_note(note, digits), note)
    return table


def write_note(note: Note, digits: Digits) -> Image.Image:
    """Return the paper with its digits side by side, as RGB."""
    rng = np.random.default_rng(note.seed)
    inks = [draw_ink(pick_digit(digits, int(character), rng), note.height, rng) for character in note.text]
    height = max(ink.shape[0] for ink in inks) + 2 * MARGIN
    width = sum(ink.shape[1] for ink in inks) + GAP * (len(inks) - 1) + 2 * MARGIN
    paper = np.full((height, max(width, height), 3), note.paper, dtype=np.float32)
    paper += rng.normal(0, 2.5, paper.shape[:2])[..., None].astype(np.float32)
    left = MARGIN + (paper.shape[1] - width) // 2
    for ink in inks:
        write_digit(paper, ink, left, (height - ink.shape[0]) // 2, note.ink)
        left += ink.shape[1] + GAP
    return Image.fromarray(np.clip(paper, 0, 255).astype(np.uint8))


def pick_digit(digits: Digits, class_id: int, rng: np.random.Generator) -> np.ndarray:
    numbers = np.flatnonzero(digits.class_ids == class_id)
    master: np.ndarray = digits.masters[int(rng.choice(numbers))]
    return master


def write_digit(paper: FloatArray, ink: FloatArray, left: int, top: int, colour: tuple[int, int, int]) -> None:
    patch = paper[top : top + ink.shape[0], left : left + ink.shape[1]]
    patch += ink[..., None] * (np.array(colour, dtype=np.float32) - patch)


def lay_down(table: Image.Image, paper: Image.Image, note: Note) -> None:
    """Turn the paper and lay it on the table, above its shadow."""
    sheet = paper.convert("RGBA").rotate(note.angle, Image.Resampling.BICUBIC, expand=True)
    corner = (note.centre[0] - sheet.width // 2, note.centre[1] - sheet.height // 2)
    shadow = Image.new("L", table.size)
    shadow.paste(sheet.getchannel("A").point(lambda value: value * 0.6), (corner[0] + SHADOW // 2, corner[1] + SHADOW))
    table.paste((20, 8, 0), mask=shadow.filter(ImageFilter.GaussianBlur(SHADOW)))
    table.paste(sheet, corner, sheet)


if __name__ == "__main__":
    main()
