"""Commands as a user types them, whose answers a work folder keeps: what was done is not done again."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from mar_tools.command_line import ROOT
from mar_tools.terminal import print_line


def draw(task: str, data: Path, counts: dict[str, int]) -> None:
    """Draw the pictures of all parts, unless they are there."""
    if data.exists():
        return
    sys.path.append(str(ROOT))  # for `examples`, which nothing installs
    from lab.compression import pictures

    print_line(f"{task}: drawing pictures")
    partial = data.with_name("drawing")
    {"digits": pictures.draw_digits, "letters": pictures.draw_letters}[task](partial, counts)
    partial.rename(data)


def call(script: str, *arguments: object) -> dict[str, Any]:
    """Return what a command says as JSON, having gone on where an earlier run of it ended. Raises where it fails.

    The last argument is the folder that it writes. The answer lies beside it.
    """
    output = Path(str(arguments[-1]))
    result = output.with_suffix(".json")
    if not result.exists():
        print_line(f"{output}: {script}")
        resume = ["--resume"] if (output / "training.json").exists() else []
        done = command(script, *arguments, *resume, "--json")
        if done.returncode:
            sys.exit(done.returncode)
        result.write_text(done.stdout)
    return dict(json.loads(result.read_text()))


def command(script: str, *arguments: object) -> "subprocess.CompletedProcess[str]":
    line = [sys.executable, str(ROOT / "scripts" / script), *map(str, arguments)]
    return subprocess.run(line, stdout=subprocess.PIPE, text=True)
