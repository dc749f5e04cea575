"""Predict image files or folders, over HTTP or in process.

    python scripts/predict_images.py digits examples/digits_classification/samples
    python scripts/predict_images.py digits_detection photo.jpg --option score_threshold=0.3 --json
    python scripts/predict_images.py --archive model_store/digits.mar photo.jpg
    python scripts/predict_images.py digits_detection photos/ --save-annotated annotated/

With --archive no server is needed. --json prints one line per image. Exit status 1 when an image failed.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
import PIL.Image
import PIL.ImageOps
from rich.console import Console
from rich.progress import track
from rich.table import Column, Table

from mar_tools.annotation import annotate
from mar_tools.command_line import ROOT, new_parser, run
from mar_tools.images import find_images
from mar_tools.predicting import Answer, Predict, predict_in_process, predict_over_http
from mar_tools.torchserve_api import TorchServeClient, read_address
from vision_serving.errors import VisionServingError
from vision_serving.payload import parse_options_header


class PredictionError(VisionServingError):
    """Some images have no prediction."""


def main() -> None:
    parser = new_parser(__doc__)
    parser.usage = (
        "%(prog)s [OPTIONS] MODEL IMAGE [IMAGE ...]\n       %(prog)s [OPTIONS] --archive FILE IMAGE [IMAGE ...]"
    )
    parser.add_argument("inputs", nargs="+", metavar="MODEL IMAGE", help="model name (not with --archive), then images")
    parser.add_argument("--archive", type=Path, help="predict in process from this .mar")
    parser.add_argument(
        "--option", action="append", default=[], metavar="NAME=VALUE", help="top_k=3, score_threshold=0.4"
    )
    parser.add_argument(
        "--save-annotated", type=Path, metavar="FOLDER", help="pictures with boxes or classes drawn on them"
    )
    parser.add_argument("--config", type=Path, default=ROOT / "config.properties", help="the server's settings")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_intermixed_args()
    images = arguments.inputs if arguments.archive else arguments.inputs[1:]
    if not images:
        parser.error("give at least one image after the model name")
    if arguments.archive and not Path(images[0]).exists():
        parser.error(f"{images[0]}: no such file or folder; with --archive no model is named, only images")
    files = [file for path in images for file in find_images(Path(path))]
    with open_predictor(arguments) as predict:
        answers = predict_all(predict, files, arguments.save_annotated)
    if arguments.json:
        for file, answer in answers:
            print(orjson.dumps({"file": str(file), **answer}).decode())
    else:
        Console().print(answer_table(answers))
    failed = sum("code" in answer for _, answer in answers)
    if failed:
        first = next(f"{file}: {answer['message']}" for file, answer in answers if "code" in answer)
        raise PredictionError(f"{failed} of {len(answers)} images failed; the first, {first}")


@contextmanager
def open_predictor(arguments: Any) -> Iterator[Predict]:
    options = parse_options_header(";".join(arguments.option))
    if arguments.archive:
        with predict_in_process(arguments.archive, options) as predict:
            yield predict
    else:
        yield predict_over_http(TorchServeClient(read_address(arguments.config)), arguments.inputs[0], options)


def predict_all(predict: Predict, files: list[Path], annotated: Path | None) -> list[tuple[Path, Answer]]:
    console = Console(stderr=True)
    answers = []
    for file in track(files, "predicting", console=console, transient=True, disable=not console.is_terminal):
        answer = predict(file.read_bytes())
        answers.append((file, answer))
        if annotated is not None and "code" not in answer:
            save_annotated(file, answer, annotated)
    return answers


def save_annotated(file: Path, answer: Answer, folder: Path) -> None:
    """`folder/<name>.annotated.png`, with a number where there is such a file: nothing is replaced."""
    folder.mkdir(parents=True, exist_ok=True)
    target, number = folder / f"{file.name}.annotated.png", 1
    while target.exists():
        number += 1
        target = folder / f"{file.name}.annotated-{number}.png"
    with PIL.Image.open(file) as image:
        annotate(PIL.ImageOps.exif_transpose(image), answer).save(target)


def answer_table(answers: list[tuple[Path, Answer]]) -> Table:
    boxes = any("detections" in answer for _, answer in answers)
    table = Table(Column("image", overflow="fold"), "label", "score", *(["box"] if boxes else []))
    for file, answer in answers:
        rows: list[dict[str, Any]] = answer.get("classes", []) + answer.get("detections", [])
        if not rows:
            table.add_row(file.name, f"{answer['code']} {answer['type']}" if "code" in answer else "nothing found")
        for index, entry in enumerate(rows):
            box = ", ".join(f"{side:g}" for side in entry.get("box", []))
            cells = [file.name if index == 0 else "", entry["label"], f"{entry['score']:.3f}"]
            table.add_row(*cells, *([box] if boxes else []))
    return table


if __name__ == "__main__":
    run(main)
