"""Runs of predict_images.py as processes, with an archive that a picture can hold or end."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson
import pyarrow.parquet as pq
from conftest import write_tiny_recipe
from fakes import TINY_CLASSIFIER
from PIL import Image

from mar_tools.building.packing import build_archive
from mar_tools.command_line import ROOT
from mar_tools.exporting.export import export_model
from mar_tools.models.checkpoints import load_checkpoint
from mar_tools.models.recipes import read_recipe
from mar_tools.verification.gate import verify_export
from mar_tools.waiting import wait_until

COUNT, BROKEN_EVERY, HELD = 60, 10, 20
BROKEN = COUNT // BROKEN_EVERY
PATIENCE_S = 60.0
COMMAND, GATE = "predict_images.py", "TEST_GATE"
ODD = TINY_CLASSIFIER.replace(
    "    def forward(self, images):\n",
    f"""    def forward(self, images):
        import os
        import time

        pixels = images.flatten(1)
        if not self.training and bool((pixels.amin(1) > 0.999).any()):
            os.kill(os.getpid(), 9)
        while bool((pixels.amax(1) < -1.5).any()) and os.path.exists(os.environ.get({GATE!r}, "")):
            time.sleep(0.02)
""",
)


def build_odd_archive(folder: Path) -> None:
    """Build an archive of a model that a white picture ends, as one that takes all memory would.

    A black one holds it while the file that TEST_GATE names is there.
    """
    path = write_tiny_recipe(folder / "recipe", name="odd")
    (path.parent / "tiny.py").write_text(ODD)
    recipe = read_recipe(path)
    export = export_model(recipe, load_checkpoint(recipe), "eager", "fp32", folder / "exports")
    verify_export(export)
    build_archive(export, ROOT / "handlers", folder)


def write_photos(folder: Path, count: int, size: tuple[int, int]) -> Path:
    """Write pictures, of which some are broken and one is black."""
    folder.mkdir()
    for number in range(count):
        file = folder / f"{number:04}.png"
        if number % BROKEN_EVERY == BROKEN_EVERY - 1:
            file.write_bytes(b"no picture")
        else:
            Image.new("RGB", size, "black" if number == HELD else (number, 99, 9)).save(file, compress_level=1)
    return folder


def start(*arguments: object, **options: Any) -> "subprocess.Popen[str]":
    command = [sys.executable, str(ROOT / "scripts" / COMMAND), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def finish(process: "subprocess.Popen[str]", patience_s: float = PATIENCE_S) -> tuple[int, str]:
    _, said = process.communicate(timeout=patience_s)
    return process.returncode, said


def read_rows(output: Path) -> list[tuple[str, bool]]:
    """Each path with whether it has an answer, sorted."""
    if output.is_dir():
        rows = pq.read_table(output, columns=["path", "status"]).to_pylist()
        return sorted((row["path"], row["status"] == 200) for row in rows)
    return [(row["file"], "classes" in row) for row in map(orjson.loads, output.read_bytes().splitlines())]


def expected_rows(photos: Path) -> list[tuple[str, bool]]:
    return [(str(file), file.read_bytes() != b"no picture") for file in sorted(photos.iterdir())]


def wait_for_shards(folder: Path, count: int) -> None:
    assert wait_until(lambda: len(list(folder.glob("part-*"))) >= count, PATIENCE_S)
