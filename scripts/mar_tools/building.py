"""Recipe -> export -> verify -> time, for every candidate, and the choice among them."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from mar_tools.checkpoints import Checkpoint, load_checkpoint
from mar_tools.exporters import candidates
from mar_tools.exports import REFERENCE, export_folder, export_model
from mar_tools.images import load_encoded_images
from mar_tools.recipes import Recipe
from mar_tools.verification import load_handler, verify_export
from vision_serving.errors import VisionServingError
from vision_serving.payload import Payload

TIMED_BATCH = 4
TIMING_S = 3.0


@dataclass(frozen=True)
class Candidate:
    """What became of one backend and precision. `images_per_s`: JPEG bytes to predictions, in process, batches of 4."""

    backend: str
    precision: str
    folder: str
    verdict: str
    measured: dict[str, float]
    images_per_s: float | None = None

    @property
    def passed(self) -> bool:
        return self.verdict == "verified"


def build_candidates(recipe: Recipe, exports: Path, announce: Callable[[str], None]) -> Iterator[Candidate]:
    """Export and verify what the recipe leaves to choose from, the reference first. `announce` hears each step."""
    pairs = candidates(recipe.backend, recipe.precision)
    announce("load the checkpoint")
    checkpoint = load_checkpoint(recipe)
    announce(f"export {REFERENCE}")
    export_model(recipe, checkpoint, "eager", "fp32", exports)
    timed = len(pairs) > 1
    for backend, precision in pairs:
        yield _build_candidate(recipe, checkpoint, backend, precision, exports, timed, announce)


def _build_candidate(
    recipe: Recipe, checkpoint: Checkpoint, backend: str, precision: Any, exports: Path, timed: bool,
    announce: Callable[[str], None],
) -> Candidate:  # fmt: skip
    folder = export_folder(exports, recipe, backend, precision)
    try:
        if folder.name != REFERENCE:
            announce(f"export {folder.name}")
            export_model(recipe, checkpoint, backend, precision, exports)
        announce(f"verify {folder.name}")
        report = verify_export(folder)
    except VisionServingError as error:
        return Candidate(backend, precision, str(folder), f"not possible: {error}", {})
    if not report["passed"]:
        verdict = f"rejected: {'; '.join(report['failures'])}"
        return Candidate(backend, precision, str(folder), verdict, report["measured"])
    if timed:
        announce(f"time {folder.name}")
    speed = measure_images_per_s(folder, recipe) if timed else None
    return Candidate(backend, precision, str(folder), "verified", report["measured"], speed)


def measure_images_per_s(folder: Path, recipe: Recipe) -> float:
    """Median over batches of encoded images through the handler's own `predict`, for a few seconds."""
    handler = load_handler(folder)
    images = recipe.verification.images
    encoded = load_encoded_images(None if images is None else recipe.path(images), TIMED_BATCH)
    batch = [Payload(images=(encoded[index % len(encoded)],)) for index in range(TIMED_BATCH)]
    handler.predict(batch)
    durations: list[float] = []
    finished = time.perf_counter() + TIMING_S
    while len(durations) < 3 or time.perf_counter() < finished:
        started = time.perf_counter()
        handler.predict(batch)
        durations.append(time.perf_counter() - started)
    return round(TIMED_BATCH / float(np.median(durations)), 2)


def choose(built: Sequence[Candidate]) -> Candidate | None:
    """The fastest candidate that passed, None where none did."""
    return max((c for c in built if c.passed), key=lambda c: c.images_per_s or 0.0, default=None)


def write_candidates(built: Sequence[Candidate], path: Path) -> None:
    path.write_bytes(orjson.dumps([asdict(candidate) for candidate in built], option=orjson.OPT_INDENT_2))
