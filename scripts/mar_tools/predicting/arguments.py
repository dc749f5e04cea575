"""What predict_images.py can be asked for, and which of it goes together."""

import argparse
from glob import has_magic
from pathlib import Path

from mar_tools.command_line import ROOT, new_parser, positive_count
from mar_tools.predicting.formats import COCO, FORMATS
from mar_tools.predicting.shards import PARQUET

JSON_LINES = "json-lines"
LOCAL, RAY = "local", "ray"


def parse_arguments(docstring: str | None) -> argparse.Namespace:
    """Parse `images`, and `model`, which is None with --archive."""
    parser = new_argument_parser(docstring)
    arguments = parser.parse_intermixed_args()
    arguments.model = None if arguments.archive else arguments.inputs[0]
    arguments.images = arguments.inputs if arguments.archive else arguments.inputs[1:]
    if not arguments.images:
        parser.error("give at least one image after the model name")
    first = arguments.images[0]
    if arguments.archive and not (Path(first).exists() or "://" in first or has_magic(first)):
        parser.error(f"{first}: no such file or folder; with --archive no model is named, only images")
    check_output(parser, arguments)
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


def check_output(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    """Refuse options that would do nothing, and a Parquet folder that nothing names."""
    if arguments.format == PARQUET and not arguments.output:
        parser.error("--format parquet needs --output, a new folder")
    if arguments.resume and not is_recorded(arguments):
        parser.error("--resume goes on with what --output holds, of a format other than table; it draws no pictures")
    if (arguments.processes or arguments.batch_size) and not (arguments.archive and is_recorded(arguments)):
        parser.error("--processes and --batch-size are for --archive with --output, of a format other than table")
    if arguments.engine == RAY and not (arguments.archive and is_recorded(arguments)):
        parser.error("--engine ray is for --archive with --output, of a format other than table")
    if arguments.address and arguments.archive and arguments.engine != RAY:
        parser.error("--address is of a server, or with --engine ray of a cluster; --archive alone needs none")
    if (arguments.key or arguments.certificate) and not arguments.address:
        parser.error("--key and --certificate belong to --address")


def is_recorded(arguments: argparse.Namespace) -> bool:
    """Return whether shards are written: a table, a device, a pipe and annotated pictures are written as they come."""
    output: Path | None = arguments.output
    if output is None or arguments.format == "table" or arguments.save_annotated is not None:
        return False
    return not output.exists() or output.is_file() or output.is_dir()


def new_argument_parser(docstring: str | None) -> argparse.ArgumentParser:
    parser = new_parser(docstring)
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
    parser.add_argument(
        "--format", choices=[*FORMATS, COCO, PARQUET], default="table", help="of what is written (table)"
    )
    parser.add_argument("--json", action="store_const", const=JSON_LINES, dest="format", help="--format json-lines")
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="write there and not to standard output; a folder for parquet"
    )
    parser.add_argument("--resume", action="store_true", help="go on with --output where an earlier run has ended")
    parser.add_argument(
        "--allow-failed", action="store_true", help="exit status 0 though images failed; their rows say why"
    )
    parser.add_argument("--column", metavar="NAME", help="of Parquet files: the bytes or paths of the images")
    parser.add_argument("--coco-images", type=Path, metavar="FILE", help="a COCO file with the ids of the images")
    parser.add_argument(
        "--save-annotated", type=Path, metavar="FOLDER", help="pictures with boxes or classes drawn on them"
    )
    parser.add_argument(
        "--concurrency", type=int, choices=range(1, 65), metavar="1..64", default=4, help="requests at a time (4)"
    )
    parser.add_argument(
        "--batch-size", type=positive_count, metavar="N", help="with --archive: of images at a time (by a trial)"
    )
    parser.add_argument(
        "--processes", type=positive_count, metavar="N", help="with --archive: that load the model (by a trial)"
    )
    parser.add_argument(
        "--engine",
        choices=(LOCAL, RAY),
        default=LOCAL,
        help="with --archive: this machine, or a cluster of Ray (local)",
    )
    parser.add_argument(
        "--address", metavar="URL", help="of any server or front, instead of that of --config; of a cluster of Ray"
    )
    parser.add_argument("--key", metavar="KEY", help="with --address: a client's key, a token, or a key_file.json")
    parser.add_argument(
        "--certificate", type=Path, metavar="FILE", help="with --address: of a front that signed its own"
    )
    parser.add_argument(
        "--config", type=Path, metavar="FILE", default=ROOT / "config.properties", help="the server's settings"
    )
    return parser


def _option(text: str) -> str:
    if "=" not in text:
        raise argparse.ArgumentTypeError(f"expected NAME=VALUE, got {text!r}")
    return text
