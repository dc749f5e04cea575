"""Run docs/use/tutorial.ipynb and keep what it shows.

From the repository's root:

    pip install -c constraints.txt -r requirements/dev.txt
    python examples/make_tutorial.py

The notebook runs in a temporary folder with a server of its own, and is written back with its outputs. They hold no
paths of this machine, no times of cells and no progress. Run it after a change of the notebook, or of how results look.
"""

import argparse
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from traitlets.config import Config

from mar_tools.serving.server import Server

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOK = ROOT / "docs" / "use" / "tutorial.ipynb"
READ = ("scripts", "examples", "config.properties", "log4j2.xml")  # what the notebook reads of the repository
CELL_TIMEOUT_S = 1200  # only what hangs is ended: a busy machine takes minutes
PROGRESS = re.compile(r"^(?:.*: step \d+ of \d+, .*|comparing .*)\n", re.MULTILINE)
STYLE = re.compile(r"\x1b\[[\d;]*m")
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=NOTEBOOK, help="file to write (default: the notebook itself)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tutorial-") as folder:
        notebook = run_notebook(Path(folder))
    nbformat.write(clean(notebook), arguments.output)


def run_notebook(folder: Path) -> Any:
    """Run the notebook in `folder` as in a clone of the repository. Raises CellExecutionError where a cell fails."""
    for name in READ:
        (folder / name).symlink_to(ROOT / name)
    place = folder / "docs" / "use"
    place.mkdir(parents=True)
    settings = {
        name: str(folder / name.lower()) for name in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR")
    }
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    try:
        with tempfile.TemporaryDirectory() as sockets:  # of files: nobody else can talk to this kernel
            own = {"transport": "ipc", "ip": f"{sockets}/k", "connection_file": f"{sockets}/kernel.json"}
            # A kernel manager that is given to the client would outlive it, and its kernel too.
            client = NotebookClient(
                notebook, config=Config(KernelManager=own), timeout=CELL_TIMEOUT_S, record_timing=False
            )
            return client.execute(cwd=str(place), env={**os.environ, **settings})
    finally:  # of a notebook that failed before its last cell
        config = folder / "tutorial" / "config.properties"
        if config.is_file():
            Server(config).stop()


def clean(notebook: Any) -> Any:
    """Return the notebook with what a reader sees: without progress, times and the versions of its kernel."""
    notebook.metadata = nbformat.from_dict(METADATA)
    count = 0
    for number, cell in enumerate(notebook.cells, start=1):
        cell.id, cell.metadata = f"cell-{number:02}", nbformat.from_dict({})
        if cell.cell_type != "code":
            continue
        count += 1
        cell.execution_count = count
        cell.outputs = list(_join_streams(cell.outputs))
        for output in cell.outputs:
            if "execution_count" in output:
                output.execution_count = count
    return notebook


def _join_streams(outputs: list[Any]) -> Iterator[Any]:
    """Yield what was printed as one text, in black and white and without lines of progress, then the rest."""
    printed = "".join(output.text for output in outputs if output.output_type == "stream")
    text = PROGRESS.sub("", STYLE.sub("", printed))
    if text:
        yield nbformat.v4.new_output("stream", name="stdout", text=text)
    yield from (output for output in outputs if output.output_type != "stream")


if __name__ == "__main__":
    main()
