"""A ladder of results, from what costs least to what takes most away; each is built, and all are timed in turns."""

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson

from mar_tools.building.build import BuildOptions, Progress, build_reference, folder_of, try_candidates
from mar_tools.building.candidates import Candidate
from mar_tools.building.timing import TIMED_IMAGES, Timing, TimingPlan, time_exports
from mar_tools.building.trials import MB
from mar_tools.compressing.compression import Compression, compress
from mar_tools.compressing.fronts import Point, find_int8, mark_front
from mar_tools.compressing.plots import draw_front
from mar_tools.compressing.steps import Steps
from mar_tools.exporting.exporters import EAGER_FP32, find_candidates
from mar_tools.images import choose_images
from mar_tools.machine import memory_bytes
from mar_tools.models.recipes import Recipe, read_recipe
from mar_tools.terminal import print_line, show_steps
from vision_serving.errors import ConfigError

TRIED = 3  # backends and precisions that each result is built with: the first of a build's own order
POINT, PLOT, POINTS, EXPORTS = "point.json", "front.png", "points", "exports"
ORIGINAL = "original"
SIZES = (0.75, 0.5)
SHARES = (0.3, 0.5, 0.7)
MULTIPLE = 16  # of a smaller picture's side
ROUNDS, ROUND_S = 5, 0.6


def list_rungs(size: int, recipe: Path) -> list[Steps]:
    """List what is tried on a network that takes pictures of a size, the gentlest first. All learn from the original.

    One is tried without its teacher, so that the table shows what that one is worth.
    """
    smaller = [each for share in SIZES if (each := max(MULTIPLE, round(share * size / MULTIPLE) * MULTIPLE)) < size]
    alone = [Steps(size=each, teacher=recipe) for each in smaller]
    pruned = [Steps(prune=share, teacher=recipe) for share in SHARES]
    both = [Steps(size=each, prune=share, teacher=recipe) for each in smaller for share in SHARES[1:]]
    order = [*alone, *pruned, *both]
    order.sort(key=cost)
    return [*order, Steps(prune=SHARES[1]), Steps(quantise="affine")]


def cost(steps: Steps) -> float:
    """Return about what share of the arithmetic is left, negative, so that the gentlest comes first."""
    return -float((steps.size or 10_000) ** 2 * (1 - (steps.prune or 0.0)) ** 2)


def climb(run: Compression, recipe: Path, output: Path, name: str, budget_s: float) -> dict[str, Any]:
    """Make, build and time the results; return the points, and which is chosen: the fastest that lost little enough."""
    began = time.monotonic()
    size_hw = run.original.preprocessing.fixed_hw
    assert size_hw is not None
    rungs = list_rungs(min(size_hw), recipe.absolute())
    points = [build_point(run, run.original.recipe, output, ORIGINAL)]
    untried = []
    with show_steps(name, "result") as announce:
        for number, steps in enumerate(rungs):
            if time.monotonic() - began >= budget_s and not (output / POINTS / steps.folder_name() / POINT).exists():
                untried.append(steps.describe())
                continue
            announce(steps.describe(), number, len(rungs))
            points.append(make_point(run, steps, output, name))
    points = mark_front(time_points(run, points, output), run.original.accuracy, run.max_drop)
    plot = draw_front(points, run.original.accuracy, run.max_drop, output / PLOT)
    chosen = next((point for point in points if point.is_chosen), None)
    return {
        "points": [point.as_row() for point in points],
        "chosen": None if chosen is None else chosen.as_row(),
        "untried": untried,
        "budget_min": budget_s / 60,
        "plot": str(plot),
        "baseline_accuracy": round(run.original.accuracy, 4),
    }


def make_point(run: Compression, steps: Steps, output: Path, name: str) -> Point:
    """Return the point of some steps, made before or now. A step that is not possible is a point with the reason."""
    folder = output / POINTS / steps.folder_name()
    kept = folder / POINT
    if kept.exists():
        return Point.read(kept)
    print_line(f"{name}: {steps.describe()}")
    try:
        found = compress(run, steps, folder, f"{name}-{steps.folder_name()}")
        point = build_point(run, read_recipe(Path(found["recipe"])), output, steps.describe())
        point = replace(point, eager_accuracy=found["accuracy"])
    except ConfigError as error:
        point = Point(name=steps.describe(), recipe="", problem=str(error))
    folder.mkdir(parents=True, exist_ok=True)
    point.write(kept)
    return point


def build_point(run: Compression, recipe: Recipe, output: Path, name: str) -> Point:
    """Export and verify a recipe with a few backends and precisions."""
    exports = output / EXPORTS
    kept = exports / recipe.name / POINT
    if name == ORIGINAL and kept.exists():
        return Point.read(kept)
    options = BuildOptions(device_type=run.device_type)
    # A floor refuses a row and keeps what was measured of it; the reference's own failure would end the build.
    recipe = without_floor(recipe)
    pairs = [pair for pair in find_candidates(recipe.backend, recipe.precision, run.device_type) if pair != EAGER_FP32]
    progress = Progress(lambda *_: None, 0)
    eager = build_reference(recipe, exports, options, progress)
    rows = [eager, *try_candidates(recipe, pairs[:TRIED], exports, options, progress)]
    folders = {str(folder_of(row, recipe, exports)): row for row in rows}
    point = Point(name=name, recipe=str(recipe.folder / "recipe.yaml"), rows=folders)
    if name == ORIGINAL:
        point.write(kept)
    return point


def without_floor(recipe: Recipe) -> Recipe:
    """Return the recipe with its floors taken off, which the front itself draws."""
    verification = recipe.verification.model_copy(update={"min_accuracy": None, "min_map": None})
    return recipe.model_copy(update={"verification": verification, "baseline": None}).located_in(recipe.folder)


def time_points(run: Compression, points: Sequence[Point], output: Path) -> list[Point]:
    """Time all exports that passed in turns, with the same pictures."""
    int8 = find_int8(points[0])
    passed = {Path(folder): row for point in points for folder, row in point.rows.items() if row.verdict == "verified"}
    if int8 is None:
        raise ConfigError(f"{points[0].recipe}: no export of the original itself passed: nothing to compare with")
    images = run.original.recipe.path(str(run.original.recipe.verification.images))
    with show_steps("timing", "step") as announce:
        plan = TimingPlan(
            images=tuple(path.absolute() for path in choose_images(images, TIMED_IMAGES)),
            batch_sizes=(1, BuildOptions.batch_size),
            rounds=ROUNDS,
            round_s=ROUND_S,
            timeout_s=BuildOptions.timeout_s,
            announce=Progress(announce, len(passed) * (1 + ROUNDS)).begin,
            skip=lambda steps: None,
        )
        sizes = {folder: (row.size_mb or 0.0) * MB for folder, row in passed.items()}
        timings = time_exports(sizes, Path(int8), plan, memory_bytes(run.device_type))
    (output / "timings.json").write_bytes(
        orjson.dumps({str(folder): timing.images_per_s() for folder, timing in timings.items()})
    )
    return [
        replace(point, rows={each: _timed(row, timings.get(Path(each))) for each, row in point.rows.items()})
        for point in points
    ]


def _timed(row: Candidate, timing: Timing | None) -> Candidate:
    if timing is None or timing.problem:
        return row
    return replace(row, load_s=timing.load_s, images_per_s=timing.images_per_s(), speedup=timing.speedup)
