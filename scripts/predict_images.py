"""Predict pictures of any number, over HTTP or in process.

    python scripts/predict_images.py digits photo.jpg photos/
    python scripts/predict_images.py detector photo.jpg --option score_threshold=0.3
    python scripts/predict_images.py detector photos/ --save-annotated annotated/
    python scripts/predict_images.py detector photos/ --format csv --output found.csv
    python scripts/predict_images.py detector val2017/ --format coco --coco-images val2017.json --output found.json
    python scripts/predict_images.py --archive digits.mar "shards/*.tar" --format parquet --output rows/
    python scripts/predict_images.py --archive digits.mar photos/ --engine ray --format parquet --output rows/
    python scripts/predict_images.py digits s3://bucket/photos --address https://host:8443 --key KEY --json

An IMAGE is a file, a folder, a glob, a text file with a path a line, a Parquet file, a tar file, or an address such as
s3://bucket/folder. With --archive no server is needed. With --output every picture has its row whatever happens:
--resume goes on after any end. An image that failed is a row with the reason, and makes the exit status 1 unless
--allow-failed is given. No file is replaced. docs/use/outputs.md describes the formats.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial
from itertools import chain
from pathlib import Path
from typing import IO

from mar_tools.command_line import find_in_store, run
from mar_tools.images import show_line
from mar_tools.predicting.arguments import JSON_LINES, RAY, is_recorded, parse_arguments
from mar_tools.predicting.coco_results import CocoIds, images_file_of, match_images, number_images
from mar_tools.predicting.connecting import connect, connect_own
from mar_tools.predicting.finished import count_finished
from mar_tools.predicting.formats import COCO, FORMATS, NewWriter, list_classes_or_boxes, write_coco
from mar_tools.predicting.inputs import Item, list_items
from mar_tools.predicting.predictors import (
    Predict,
    Send,
    predict_in_process,
    predict_items,
    predict_over_http,
    read_prediction,
)
from mar_tools.predicting.recording import Recorded, Recording, merge_and_remove, record_in_process, record_over_http
from mar_tools.predicting.rows import Answer, has_failed
from mar_tools.predicting.shards import LINES, PARQUET
from mar_tools.serving.address import read_address
from mar_tools.serving.torchserve_api import TorchServeClient
from mar_tools.terminal import show_items
from vision_serving.answers.drawing import draw_prediction, open_picture
from vision_serving.config import ImageLimits
from vision_serving.errors import ConfigError, InvalidOptionError, RequestError, VisionServingError
from vision_serving.requests.payload import parse_options_header

CORNERS = "xyxy"
ANY_SIZE = ImageLimits(max_pixels=10**9)  # whoever predicted it has judged it


class FailedImagesError(VisionServingError):
    """Some images have no prediction."""


def main() -> None:
    arguments = parse_arguments(__doc__)
    try:
        (record_answers if is_recorded(arguments) else stream_answers)(arguments)
    except FailedImagesError as error:
        if not arguments.allow_failed:
            raise
        print(error, file=sys.stderr)


def record_answers(arguments: argparse.Namespace) -> None:
    """Write shards, which become one file unless the format is Parquet."""
    output: Path = arguments.output
    if arguments.resume and output.is_file():
        tell_finished(arguments)
        return
    ids = prepare_ids(arguments)
    recording = Recording(
        arguments.images,
        arguments.column,
        parse_options_header(";".join(arguments.option)),
        output,
        PARQUET if arguments.format == PARQUET else LINES,
        arguments.resume,
        partial(require_answering, arguments=arguments),
    )
    with open_recording(arguments, recording) as recorded:
        result, rows = recorded.result, recorded.result.rows
        if arguments.format == COCO:
            rows = merge_coco(recorded, recording, ids)
        elif arguments.format != PARQUET:
            count = partial(count_rows, form=arguments.format)
            rows = merge_and_remove(
                recorded, recording, FORMATS[arguments.format], count, arguments.format == JSON_LINES
            )
    tell_written(rows, output)
    if result.failed:
        first = f"; the first, {recorded.failure}" if recorded.failure else ""
        raise FailedImagesError(f"{result.failed} of {result.rows} images failed{first}")


def tell_finished(arguments: argparse.Namespace) -> None:
    """Say that nothing is left to do. Raises ConfigError where a picture is not in the file, FailedImagesError."""
    output, form = arguments.output, arguments.format
    items = list(list_items(arguments.images, arguments.column))
    if form == COCO and arguments.coco_images:  # results do not name pictures without boxes
        match_images([item.name for item in items], arguments.coco_images)
        failed = 0
    else:
        failed = count_finished(output, form, items)
    print(f"{show_line(output)} is complete: it has all {len(items)} pictures", file=sys.stderr)
    if failed:
        raise FailedImagesError(f"{failed} images failed, as {show_line(output)} says")


def stream_answers(arguments: argparse.Namespace) -> None:
    """Write answers as they come, and annotated pictures."""
    items = list(list_items(arguments.images, arguments.column))
    new_writer = choose_format(arguments, [item.name for item in items])
    failures, rows, drawn = [], 0, 0
    with open_predictor(arguments) as predict, ExitStack() as stack:
        answers = show_progress(predict_items(predict, items, arguments.concurrency), len(items), arguments)
        first = next(answers)  # before there is a file: without an answer that fits none is left
        require_fitting(first[1], arguments)
        write = stack.enter_context(new_writer(stack.enter_context(open_output(arguments))))
        for item, answer in chain([first], answers):
            require_fitting(answer, arguments)
            write(item.name, answer)
            rows += count_rows(answer, arguments.format)
            if has_failed(answer):
                failures.append(f"{show_line(item.name)}: {answer['message']}")
            elif arguments.save_annotated is not None:
                undrawn = save_annotated(item, answer, arguments)
                failures += undrawn
                drawn += not undrawn
    tell_written(rows, arguments.output)
    tell_written(drawn, arguments.save_annotated, "annotated picture")
    if failures:
        raise FailedImagesError(f"{len(failures)} of {len(items)} images failed; the first, {failures[0]}")


def choose_format(arguments: argparse.Namespace, files: Sequence[str]) -> NewWriter:
    """Raises ConfigError where the work would replace a file, or `--coco-images` lacks an image."""
    if arguments.output is not None:
        require_new(arguments.output)
    if arguments.format != COCO:
        return FORMATS[arguments.format]
    if arguments.coco_images:
        return partial(write_coco, ids=match_images(files, arguments.coco_images))
    images_file = images_file_of(arguments.output)
    require_new(images_file)
    return partial(write_coco, ids=number_images(files), images_file=images_file)


def prepare_ids(arguments: argparse.Namespace) -> CocoIds | None:
    """Return the ids of `--coco-images`, if given. Raises ConfigError where the work would replace a file."""
    if arguments.format != PARQUET:
        require_new(arguments.output)
    if arguments.format != COCO:
        return None
    if not arguments.coco_images:
        require_new(images_file_of(arguments.output))
        return None
    return match_images([item.name for item in list_items(arguments.images, arguments.column)], arguments.coco_images)


def merge_coco(recorded: Recorded, recording: Recording, ids: CocoIds | None) -> int:
    """Merge COCO results; without ids, number the images, and write which is which beside them."""
    images_file = None if ids else images_file_of(recording.output)
    known = ids or number_images([row["path"] for row in recorded.result.read_rows()])
    new_writer = partial(write_coco, ids=known, images_file=images_file)
    return merge_and_remove(recorded, recording, new_writer, partial(count_rows, form=COCO), whole=False)


def open_recording(arguments: argparse.Namespace, recording: Recording) -> AbstractContextManager[Recorded]:
    if arguments.archive:
        archive = find_in_store(arguments.archive)
        processes, batch_size = arguments.processes, arguments.batch_size
        if arguments.engine == RAY:
            from mar_tools.cluster.ray_engine import record_on_ray

            return record_on_ray(recording, archive, arguments.address, processes, batch_size)
        return record_in_process(recording, archive, processes, batch_size)
    return record_over_http(recording, open_server(arguments), arguments.model, arguments.concurrency)


def open_server(arguments: argparse.Namespace) -> Send:
    """Return what sends a picture to the server of `--address`, or of the server's own settings."""
    if arguments.address:
        return connect(arguments.address, arguments.key, arguments.certificate)
    return connect_own(TorchServeClient(read_address(arguments.config)))


@contextmanager
def open_predictor(arguments: argparse.Namespace) -> Iterator[Predict]:
    options = parse_options_header(";".join(arguments.option))
    if arguments.archive:
        with predict_in_process(find_in_store(arguments.archive), options) as predict:
            yield predict
    else:
        yield predict_over_http(open_server(arguments), arguments.model, options)


def require_answering(answer: Answer, arguments: argparse.Namespace) -> None:
    """Require options that the model has, and answers that fit the format. Raises InvalidOptionError or ConfigError."""
    if answer.get("type") == InvalidOptionError.__name__:
        raise InvalidOptionError(answer["message"])
    require_fitting(answer, arguments)
    if arguments.format == COCO and not has_failed(answer) and "detections" not in answer:
        raise ConfigError("COCO results are for detectors; this model gives no boxes")


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
    answers: Iterator[tuple[Item, Answer]], total: int, arguments: argparse.Namespace
) -> Iterator[tuple[Item, Answer]]:
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


def save_annotated(item: Item, answer: Answer, arguments: argparse.Namespace) -> list[str]:
    """Save `FOLDER/<name>.annotated.png`, with a number where there is one. Return why it could not be drawn.

    <name>: as it lies in a folder that was given.
    """
    file = Path(item.name)
    given = next((folder for folder in file.parents if folder in map(Path, arguments.images)), file.parent)
    base = arguments.save_annotated / file.relative_to(given)
    target, number = base.with_name(f"{file.name}.annotated.png"), 1
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        while target.exists():
            number += 1
            target = base.with_name(f"{file.name}.annotated-{number}.png")
        picture = open_picture(item.read(), ANY_SIZE)
        draw_prediction(picture, read_prediction(answer)).save(target)
    except (RequestError, OSError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        return [f"{show_line(file)} has a prediction, but cannot be drawn on: {reason}"]
    return []


if __name__ == "__main__":
    run(main)
