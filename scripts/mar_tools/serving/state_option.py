"""The option `--state` of commands: a folder for all that a server writes, for this command and what it starts."""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vision_serving.worker.server_settings import STATE_VARIABLE


class _SetState(argparse.Action):
    """Names the folder in the environment, where the frontend, its workers and its exporter look for it too."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        given: argparse.Namespace,
        value: str | Sequence[Any] | None,
        option: str | None = None,
    ) -> None:
        if not value:  # as of a variable of the shell that nobody set
            parser.error(f"argument {option}: expected a folder, got ''")
        os.environ[STATE_VARIABLE] = str(Path(str(value)).absolute())


def add_state_option(parser: argparse.ArgumentParser) -> None:
    text = f"for all that the server writes (default: ${STATE_VARIABLE}, or `vision_state` of its settings)"
    parser.add_argument("--state", action=_SetState, metavar="FOLDER", default=argparse.SUPPRESS, help=text)
