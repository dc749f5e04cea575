"""The options that every command of a load test has. It imports no PyTorch, so that their help comes at once."""

from argparse import ArgumentParser, ArgumentTypeError
from dataclasses import dataclass
from pathlib import Path

from mar_tools.command_line import ROOT, positive, positive_count
from vision_serving.errors import ConfigError

IMAGES = 200
IMAGE_SIZE = (640, 427)


@dataclass(frozen=True)
class Rate:
    """What an open loop is asked for: requests/s, or a share of what the target served at most in closed loops."""

    value: float
    is_share: bool = False

    @classmethod
    def parse(cls, text: str) -> "Rate":
        """Read `80` or `70%`. Raises ArgumentTypeError."""
        is_share = text.endswith("%")
        try:
            return cls(positive(text.removesuffix("%")) / (100 if is_share else 1), is_share)
        except ArgumentTypeError as error:
            raise ArgumentTypeError(f"expected requests/s such as 80, or a share such as 70%, got {text!r}") from error

    def of(self, most: float | None) -> float:
        """Return requests/s. Raises ConfigError for a share of what is not known, or of nothing."""
        if not self.is_share:
            return self.value
        if not most:
            raise ConfigError(f"a rate of {self.value:.0%} needs a closed loop (--connections) that the server answers")
        return round(self.value * most, 2)


def add_load_options(parser: ArgumentParser) -> None:
    parser.add_argument("models", nargs="*", metavar="MODEL")
    parser.add_argument(
        "--connections", type=positive_count, nargs="*", default=[8], help="of closed loops, one after the other"
    )
    parser.add_argument("--rates", type=Rate.parse, nargs="+", default=[], help="of open loops: requests/s, or 70%%")
    parser.add_argument("--rounds", type=positive_count, default=3)
    parser.add_argument("--round-s", type=positive, default=15.0, help="how long each load lasts, in each round")
    parser.add_argument(
        "--in-process", type=positive_count, nargs="*", metavar="BATCH", help="P too (default: as served)"
    )
    parser.add_argument("--images", type=Path, help="a folder; default: cuts of examples/photographs")
    parser.add_argument("--image-count", type=positive_count, default=IMAGES, help="how many different ones")
    parser.add_argument("--image-size", type=_size, default=IMAGE_SIZE, metavar="WxH", help="of the cuts")
    parser.add_argument("--config", type=Path, default=ROOT / "config.properties", help="the server's settings")
    parser.add_argument("--json", type=_new_file, metavar="FILE", help="write the results")
    parser.add_argument("--plots", type=Path, metavar="FOLDER", help="draw the results as PNG and SVG")


def _new_file(text: str) -> Path:
    """Read the path of a file to write, now, and not after minutes of measuring."""
    path = Path(text)
    if not path.parent.is_dir():
        raise ArgumentTypeError(f"{text}: no such folder as {path.parent}")
    return path


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    if not (width.isdigit() and height.isdigit() and int(width) and int(height)):
        raise ArgumentTypeError(f"expected a width and a height such as 640x427, got {text!r}")
    return int(width), int(height)
