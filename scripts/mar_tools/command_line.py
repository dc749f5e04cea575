"""What every command shares: its docstring is its help, and a failure is one line and exit status 1.

A command imports what needs PyTorch inside its functions, so that `--help` takes no second.
"""

import argparse
import os
import re
import shlex
import shutil
import signal
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

import orjson

from vision_serving.errors import EXTRAS, VisionServingError, how_to_install, tell

ROOT = Path(__file__).resolve().parents[2]
HANDLERS = ROOT / "handlers"
MODEL_STORE = ROOT / "model_store"
EXPORTS = ROOT / "exports"
Announce: TypeAlias = Callable[[str], None]  # hears what a command is at

UNREAD = 128 + signal.SIGPIPE  # the status of a command that nobody reads to its end
WIDEST_HELP = 100  # longer lines are hard to read


def find_in_store(archive: Path) -> Path:
    """Return an archive that is there, or the one of that name in model_store."""
    named = MODEL_STORE / archive
    return archive if archive.exists() or not named.exists() else named


class DocstringHelp(argparse.HelpFormatter):
    """Wraps a docstring to the terminal: paragraphs as prose, indented lines, its examples, as commands."""

    def __init__(self, prog: str, **settings: Any) -> None:
        columns = min(shutil.get_terminal_size().columns, WIDEST_HELP)
        super().__init__(prog, **{"width": columns - 2, "max_help_position": 26, **settings})

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return "\n\n".join(
            fill_example(block, width)
            if block[0] == " "
            else textwrap.fill(" ".join(block.split()), width, break_on_hyphens=False)
            for block in re.split(r"\n\s*\n", text.strip("\n"))
        )


def fill_example(text: str, width: int) -> str:
    """Keep lines that fit. Of others, write the comment above, and break the command before an option."""
    lines: list[str] = []
    for line in text.splitlines():
        indent = line[: len(line) - len(line.lstrip())]
        command, _, comment = (line, "", "") if len(line) <= width else line.partition(" # ")
        if comment:
            lines += textwrap.wrap(comment, width, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# ")
        if len(command.rstrip()) > width:
            unbroken = re.sub(r" (?!--)", "\xa0", " ".join(command.split()))  # an option keeps its value
            parts = textwrap.wrap(unbroken, width - 8, break_long_words=False, break_on_hyphens=False)
            command = indent + f" \\\n{indent}    ".join(parts).replace("\xa0", " ")
        lines.append(command.rstrip())
    return "\n".join(lines)


def name_command(script: str, *arguments: Path | str) -> str:
    """Return what to type for another command of this folder: beside the one that runs, as that was called."""
    return shlex.join(["python", str(Path(sys.argv[0]).with_name(script)), *map(str, arguments)])


def new_parser(docstring: str | None) -> argparse.ArgumentParser:
    """Return a parser whose help is the docstring of a command."""
    return argparse.ArgumentParser(description=docstring, formatter_class=DocstringHelp)


def recipe_file(text: str) -> Path:
    """Read an argument that has to be the path of a recipe, for which people give the model itself."""
    path = Path(text)
    if path.suffix.lower() not in (".yaml", ".yml"):
        raise argparse.ArgumentTypeError(
            f"expected a recipe, a .yaml file, got {text!r}; new_recipe.py writes one for a model"
        )
    return path


def existing_folder(text: str) -> Path:
    """Read an argument that has to be a folder which is there."""
    path = Path(text)
    if not path.is_dir():
        raise argparse.ArgumentTypeError(
            f"expected a folder, got {text!r}, which is {'a file' if path.exists() else 'not there'}"
        )
    return path


def positive(text: str) -> float:
    """Read an argument that has to be more than 0."""
    number = not_negative(text)
    if number == 0:
        raise argparse.ArgumentTypeError(f"expected a number above 0, got {text!r}")
    return number


def not_negative(text: str) -> float:
    """Read an argument that has to be 0 or more."""
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a number from 0, got {text!r}")
    return number


def positive_count(text: str) -> int:
    """Read an argument that has to be a whole number from 1."""
    if not (text.isdecimal() and int(text)):
        raise argparse.ArgumentTypeError(f"expected a whole number from 1, got {text!r}")
    return int(text)


def print_json(document: Any, indent: bool = False) -> None:
    """Print what `--json` asks for."""
    print(orjson.dumps(document, option=orjson.OPT_INDENT_2 if indent else None).decode())


def reader_is_gone() -> bool:
    """Return whether nobody reads our output, as behind `| head`. Its rest goes nowhere then."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return True
    return False


def run(main: Callable[[], None]) -> NoReturn:
    """Run a command's main. Exit status 0 only if it happened."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda received, _: sys.exit(128 + received))  # so that `finally` and `with` clean up
    try:
        main()
        if reader_is_gone():
            sys.exit(UNREAD)
    except VisionServingError as error:
        print(f"error: {tell(error)}", file=sys.stderr)
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
