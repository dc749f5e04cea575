"""What every script shares: its docstring is its help, and a failure is one line and exit status 1."""

import argparse
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from vision_serving.errors import VisionServingError

ROOT = Path(__file__).resolve().parents[2]
HANDLERS = ROOT / "handlers"
MODEL_STORE = ROOT / "model_store"
EXPORTS = ROOT / "exports"


def new_parser(docstring: str | None) -> argparse.ArgumentParser:
    return argparse.ArgumentParser(description=docstring, formatter_class=argparse.RawDescriptionHelpFormatter)


def run(main: Callable[[], None]) -> NoReturn:
    """Run a script's main. Exit status 0 only if it happened."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda received, _: sys.exit(128 + received))  # so that `finally` and `with` clean up
    try:
        main()
    except VisionServingError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(1)
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nor shall the last flush fail
        sys.exit(0)
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        print(f"error: {place}{error.strerror or error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    sys.exit(0)
