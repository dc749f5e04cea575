"""Recipe -> export -> verify -> time, for every candidate, and the choice among them."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import orjson

from mar_tools.checkpoints import Checkpoint, load_checkpoint
from mar_tools.exporters import find_candidates
from mar_tools.exports import REFERENCE, export_folder, export_model
from mar_tools.images import load_encoded_images
from mar_tools.recipes import Recipe
from mar_tools.verification import load_handler, verify_export
from vision_serving.errors import VisionServingError
from vision_serving.payload import Payload

TIMED_BATCH = 4
TIMING_ROUNDS = 5
ROUND_S = 0.6


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


def build_candidates(recipe: Recipe, exports: Path, announce: Callable[[str], None]) -> list[Candidate]:
    """Export and verify what the recipe leaves to choose from, then time what passed. `announce` hears each step."""
    pairs = find_candidates(recipe.backend, recipe.precision, "cpu")
    announce("load the checkpoint")
    checkpoint = load_checkpoint(recipe)
    announce(f"export {REFERENCE}")
    export_model(recipe, checkpoint, "eager", "fp32", exports)
    built = [_build_candidate(recipe, checkpoint, *pair, exports, announce) for pair in pairs]
    passed = [candidate for candidate in built if candidate.passed]
    if len(passed) < 2:
        return built
    announce("time what passed")
    speeds = measure_images_per_s([Path(candidate.folder) for candidate in passed], recipe)
    return [replace(c, images_per_s=speeds[Path(c.folder)]) if c.passed else c for c in built]


def _build_candidate(
    recipe: Recipe, checkpoint: Checkpoint, backend: str, precision: Any, exports: Path, announce: Callable[[str], None]
) -> Candidate:
    folder = export_folder(exports, recipe, backend, precision)
    try:
        if folder.name != REFERENCE:
            announce(f"export {folder.name}")
            export_model(recipe, checkpoint, backend, precision, exports)
        announce(f"verify {folder.name}")
        report = verify_export(folder)
    except VisionServingError as error:
        return Candidate(backend, precision, str(folder), f"not possible: {error}", {})
    verdict = "verified" if report["passed"] else f"rejected: {'; '.join(report['failures'])}"
    return Candidate(backend, precision, str(folder), verdict, report["measured"])


def measure_images_per_s(folders: Sequence[Path], recipe: Recipe) -> dict[Path, float]:
    """Encoded images through each handler's own `predict`, in turn (A B C A B C ...): the median over all batches."""
    images = recipe.verification.images
    encoded = load_encoded_images(None if images is None else recipe.path(images), TIMED_BATCH)
    batch = [Payload(images=(encoded[index % len(encoded)],)) for index in range(TIMED_BATCH)]
    handlers = {folder: load_handler(folder) for folder in folders}
    for handler in handlers.values():
        handler.predict(batch)
    durations: dict[Path, list[float]] = {folder: [] for folder in folders}
    for _ in range(TIMING_ROUNDS):
        for folder, handler in handlers.items():
            finished = time.perf_counter() + ROUND_S
            while True:
                started = time.perf_counter()
                handler.predict(batch)
                durations[folder].append(time.perf_counter() - started)
                if time.perf_counter() >= finished:
                    break
    return {folder: round(TIMED_BATCH / statistics.median(times), 2) for folder, times in durations.items()}


def choose(built: Sequence[Candidate]) -> Candidate | None:
    """The fastest candidate that passed, None where none did."""
    return max((c for c in built if c.passed), key=lambda c: c.images_per_s or 0.0, default=None)


def write_candidates(built: Sequence[Candidate], path: Path) -> None:
    path.write_bytes(orjson.dumps([asdict(candidate) for candidate in built], option=orjson.OPT_INDENT_2))
