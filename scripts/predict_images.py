"""Predict image files or folders, over HTTP or in process.

    python scripts/predict_images.py digits photo.jpg photos/
    python scripts/predict_images.py detector photo.jpg --option score_threshold=0.3
    python scripts/predict_images.py detector photos/ --save-annotated annotated/
    python scripts/predict_images.py detector photos/ --format csv --output found.csv
    python scripts/predict_images.py detector val2017/ --format coco --coco-images val2017.json --output found.json
    python scripts/predict_images.py --archive digits.mar photo.jpg

With --archive no server is needed. Answers are written as they come, in the order of the images. An image that failed
is a row with the reason, and makes the exit status 1. No file is replaced. docs/use/outputs.md describes the formats.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial
from itertools import chain
from pathlib import Path
from typing import IO

from mar_tools.command_line import ROOT, find_in_store, new_parser, run
from mar_tools.images import find_images, read_image, show_line
from mar_tools.predicting.coco_results import match_images, number_images
from mar_tools.predicting.formats import COCO, FORMATS, NewWriter, list_classes_or_boxes, write_coco
from mar_tools.predicting.predictors import (
    Answer,
    Predict,
    has_failed,
    predict_files,
    predict_in_process,
    predict_over_http,
    read_prediction,
)
from mar_tools.serving.address import read_address
from mar_tools.serving.torchserve_api import TorchServeClient
from mar_tools.terminal import show_items
from vision_serving.answers.drawing import draw_prediction, open_picture
from vision_serving.config import ImageLimits
from vision_serving.errors import ConfigError, RequestError, VisionServingError
from vision_serving.requests.payload import parse_options_header

CORNERS = "xyxy"
ANY_SIZE = ImageLimits(max_pixels=10**9)  # whoever predicted it has judged it


class FailedImagesError(VisionServingError):
    """Some images have no prediction."""


def main() -> None:
    arguments = parse_arguments()
    files = [file for path in arguments.images for file in find_images(path)]
    new_writer = choose_format(arguments, files)
    failures, rows, drawn = [], 0, 0
    with open_predictor(arguments) as predict, ExitStack() as stack:
        answers = show_progress(predict_files(predict, files, arguments.concurrency), len(files), arguments)
        first = next(answers)  # before there is a file: without an answer that fits none is left
        require_fitting(first[1], arguments)
        write = stack.enter_context(new_writer(stack.enter_context(open_output(arguments))))
        for file, answer in chain([first], answers):
            require_fitting(answer, arguments)
            write(file, answer)
            rows += count_rows(answer, arguments.format)
            if has_failed(answer):
                failures.append(f"{show_line(file)}: {answer['message']}")
            elif arguments.save_annotated is not None:
                undrawn = save_annotated(file, answer, arguments)
                failures += undrawn
                drawn += not undrawn
    tell_written(rows, arguments.output)
    tell_written(drawn, arguments.save_annotated, "annotated picture")
    if failures:
        raise FailedImagesError(f"{len(failures)} of {len(files)} images failed; the first, {failures[0]}")


def parse_arguments() -> argparse.Namespace:
    """Parse `images`, and `model`, which is None with --archive."""
    parser = new_argument_parser()
    arguments = parser.parse_intermixed_args()
    arguments.model = None if arguments.archive else arguments.inputs[0]
    arguments.images = [Path(path) for path in (arguments.inputs if arguments.archive else arguments.inputs[1:])]
    if not arguments.images:
        parser.error("give at least one image after the model name")
    if arguments.archive and not arguments.images[0].exists():
        parser.error(f"{arguments.images[0]}: no such file or folder; with --archive no model is named, only images")
    if arguments.coco_images and arguments.format != COCO:
        parser.error("--coco-images belongs to --format coco")
    if arguments.format == COCO and not (arguments.coco_images or arguments.output):
        parser.error(
            "--format coco, for the boxes of a detector, needs --coco-images, or --output, beside which the list of "
            "images is written"
        )
    if arguments.archive:
        arguments.concurrency = 1  # in process, one image has all cores
    return arguments


def new_argument_parser() -> argparse.ArgumentParser:
    parser = new_parser(__doc__)
    parser.usage = (
        "%(prog)s [OPTIONS] MODEL IMAGE [IMAGE ...]\n       %(prog)s [OPTIONS] --archive FILE IMAGE [IMAGE ...]"
    )
    parser.add_argument("inputs", nargs="+", metavar="MODEL IMAGE", help="a model (not with --archive), then images")
    parser.add_argument(
        "--archive", type=Path, metavar="FILE", help="predict in process from this .mar, or its name in model_store"
    )
    parser.add_argument(
        "--option", type=_option, action="append", default=[], metavar="NAME=VALUE", help="such as top_k=3"
    )
    parser.add_argument("--format", choices=[*FORMATS, COCO], default="table", help="of what is written (table)")
    parser.add_argument("--json", action="store_const", const="json-lines", dest="format", help="--format json-lines")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write there and not to standard output")
    parser.add_argument("--coco-images", type=Path, metavar="FILE", help="a COCO file with the ids of the images")
    parser.add_argument(
        "--save-annotated", type=Path, metavar="FOLDER", help="pictures with boxes or classes drawn on them"
    )
    parser.add_argument(
        "--concurrency", type=int, choices=range(1, 65), metavar="1..64", default=4, help="requests at a time (4)"
    )
    parser.add_argument(
        "--config", type=Path, metavar="FILE", default=ROOT / "config.properties", help="the server's settings"
    )
    return parser


def _option(text: str) -> str:
    if "=" not in text:
        raise argparse.ArgumentTypeError(f"expected NAME=VALUE, got {text!r}")
    return text


def choose_format(arguments: argparse.Namespace, files: Sequence[Path]) -> NewWriter:
    """Raises ConfigError where the work would replace a file, or `--coco-images` lacks an image."""
    if arguments.output is not None:
        require_new(arguments.output)
    if arguments.format != COCO:
        return FORMATS[arguments.format]
    if arguments.coco_images:
        return partial(write_coco, ids=match_images(files, arguments.coco_images))
    images_file = arguments.output.with_suffix(".images.json")
    require_new(images_file)
    return partial(write_coco, ids=number_images(files), images_file=images_file)


@contextmanager
def open_predictor(arguments: argparse.Namespace) -> Iterator[Predict]:
    options = parse_options_header(";".join(arguments.option))
    if arguments.archive:
        with predict_in_process(find_in_store(arguments.archive), options) as predict:
            yield predict
    else:
        yield predict_over_http(TorchServeClient(read_address(arguments.config)), arguments.model, options)


def require_fitting(answer: Answer, arguments: argparse.Namespace) -> None:
    """Require classes, or boxes as corners: the request, or the model's own options, may ask for another form."""
    needs_corners = arguments.format in ("csv", COCO) or arguments.save_annotated is not None
    if needs_corners and "embedding" in answer:
        raise ConfigError(
            "--format csv and coco and --save-annotated are for classes and boxes; this model gives embeddings: give "
            "--format json-lines"
        )
    found = answer.get("box_format", CORNERS)
    if needs_corners and found != CORNERS:
        raise ConfigError(
            f"--format csv and coco and --save-annotated need boxes as {CORNERS}, got {found}; "
            f"give --option box_format={CORNERS}"
        )


def require_new(file: Path) -> None:
    """Raises ConfigError for a file that is there. A device or a pipe takes what comes."""
    if file.is_file():
        raise ConfigError(f"{file}: this file is there, and would be replaced; give another --output, or move it away")


def open_output(arguments: argparse.Namespace) -> AbstractContextManager[IO[str]]:
    """Open a new file, or standard output, which takes any label. Programs expect UTF-8 of both."""
    if arguments.output is None:
        encoding = None if arguments.format == "table" else "utf-8"
        sys.stdout.reconfigure(encoding=encoding, errors="backslashreplace")  # type: ignore[union-attr]
        return nullcontext(sys.stdout)
    output: Path = arguments.output
    is_stream = output.exists() and not output.is_file()  # "x" fails where another run has made the file meanwhile
    return output.open("w" if is_stream else "x", encoding="utf-8", newline="")


def show_progress(
    answers: Iterator[tuple[Path, Answer]], total: int, arguments: argparse.Namespace
) -> Iterator[tuple[Path, Answer]]:
    """Show how far it is, unless the answers come to the terminal meanwhile."""
    writes_meanwhile = sys.stdout.isatty() and arguments.output is None and arguments.format != "table"
    return show_items(answers, "predicting", total, hidden=writes_meanwhile)


def count_rows(answer: Answer, form: str) -> int:
    """Return in how many rows, lines or COCO results an answer is written."""
    found = len(list_classes_or_boxes(answer))
    return {"json-lines": 1, COCO: found}.get(form, max(found, 1))


def tell_written(count: int, where: Path | None, what: str = "row") -> None:
    if where is not None:
        print(f"{count} {what}{'s' * (count != 1)} in {show_line(where)}", file=sys.stderr)


def save_annotated(file: Path, answer: Answer, arguments: argparse.Namespace) -> list[str]:
    """Save `FOLDER/<name>.annotated.png`, with a number where there is one. Return why it could not be drawn.

    <name>: as it lies in a folder that was given.
    """
    given = next((folder for folder in file.parents if folder in arguments.images), file.parent)
    base = arguments.save_annotated / file.relative_to(given)
    target, number = base.with_name(f"{file.name}.annotated.png"), 1
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        while target.exists():
            number += 1
            target = base.with_name(f"{file.name}.annotated-{number}.png")
        picture = open_picture(read_image(file), ANY_SIZE)
        draw_prediction(picture, read_prediction(answer)).save(target)
    except (RequestError, OSError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        return [f"{show_line(file)} has a prediction, but cannot be drawn on: {reason}"]
    return []


if __name__ == "__main__":
    run(main)
