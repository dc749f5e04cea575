"""What every script shares: its docstring is its help, and a failure is one line and exit status 1."""

import argparse
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn, TypeAlias

from vision_serving.errors import EXTRAS, VisionServingError, how_to_install

ROOT = Path(__file__).resolve().parents[2]
HANDLERS = ROOT / "handlers"
MODEL_STORE = ROOT / "model_store"
EXPORTS = ROOT / "exports"
Announce: TypeAlias = Callable[[str], None]  # hears what a command is at

UNREAD = 128 + signal.SIGPIPE  # the status of a command that nobody reads to its end


def new_parser(docstring: str | None) -> argparse.ArgumentParser:
    return argparse.ArgumentParser(description=docstring, formatter_class=argparse.RawDescriptionHelpFormatter)


def reader_is_gone() -> bool:
    """Return whether nobody reads this command's output any more, as behind `| head`.

    The rest of it goes nowhere then.
    """
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return True
    return False


def run(main: Callable[[], None]) -> NoReturn:
    """Run a script's main. Exit status 0 only if it happened."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda received, _: sys.exit(128 + received))  # so that `finally` and `with` clean up
    try:
        main()
        if reader_is_gone():
            sys.exit(UNREAD)
    except VisionServingError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(1)
    except ModuleNotFoundError as error:
        if str(error.name).partition(".")[0] not in EXTRAS:
            raise
        print(f"error: this needs {how_to_install(error)}", file=sys.stderr)
        sys.exit(1)
    except OSError as error:
        if isinstance(error, BrokenPipeError) and reader_is_gone():
            sys.exit(UNREAD)
        place = f"{error.filename}: " if error.filename else ""
        print(f"error: {place}{error.strerror or error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    sys.exit(0)
