"""A ladder of results within a budget: each is built, and all are timed in turns."""

import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson

from mar_tools.building.build import BuildOptions, Progress, build_reference, folder_of, try_candidates
from mar_tools.building.candidates import Candidate
from mar_tools.building.timing import TIMED_IMAGES, Timing, TimingPlan, time_exports
from mar_tools.building.trials import MB
from mar_tools.compressing.compression import FLOATS, Compression, compress
from mar_tools.compressing.fronts import Point, find_int8, mark_front
from mar_tools.compressing.plots import draw_front
from mar_tools.compressing.rungs import Rungs
from mar_tools.compressing.steps import Steps
from mar_tools.exporting.exporters import EAGER_FP32, find_candidates
from mar_tools.images import choose_images
from mar_tools.machine import memory_bytes
from mar_tools.models.recipes import Recipe, read_recipe
from mar_tools.terminal import print_line, show_steps
from mar_tools.training.keeping import UnfinishedError
from mar_tools.training.whole_files import write_whole
from vision_serving.errors import ConfigError

TRIED = 3  # backends and precisions that each result is built with: the first of a build's own order
POINT, PLOT, POINTS, EXPORTS = "point.json", "front.png", "points", "exports"
ORIGINAL = "original"
ROUNDS, ROUND_S = 5, 0.6


def climb(run: Compression, recipe: Path, output: Path, name: str, budget_s: float) -> dict[str, Any]:
    """Make, build and time the results; return the points, and which is chosen: the fastest that lost little enough."""
    size_hw = run.original.preprocessing.fixed_hw
    assert size_hw is not None
    rungs = Rungs(min(size_hw), recipe.absolute())
    points = [build_point(run, run.original.recipe, output, ORIGINAL)]
    tried: dict[Steps, Point] = {}
    with show_steps(name, "result") as announce:
        while (steps := choose_next(rungs, run, tried)) is not None:
            spent = sum(point.seconds for point in (*points, *tried.values()))  # of earlier runs too
            if spent >= budget_s and not (output / POINTS / steps.folder_name() / POINT).exists():
                break
            announce(steps.describe(), len(tried), len(rungs.floats) + len(rungs.last))
            tried[steps] = make_point(run, steps, output, name)
    before = run.original.baseline_accuracy
    points = mark_front(time_points(run, [*points, *tried.values()], output), before, run.max_drop)
    plot = draw_front(points, before, run.max_drop, output / PLOT)
    chosen = next((point for point in points if point.is_chosen), None)
    within = {steps: is_within(run, point) for steps, point in tried.items()}
    left = [each for each in (*rungs.floats, *rungs.last) if each not in tried]
    return {
        "points": [point.as_row() for point in points],
        "chosen": None if chosen is None else chosen.as_row(),
        "untried": [each.describe() for each in left if not rungs.is_hopeless(each, within)],
        "hopeless": [each.describe() for each in left if rungs.is_hopeless(each, within)],
        "budget_min": budget_s / 60,
        "plot": str(plot),
        "baseline_accuracy": round(before, 4),
    }


def choose_next(rungs: Rungs, run: Compression, tried: Mapping[Steps, Point]) -> Steps | None:
    within = {steps: is_within(run, point) for steps, point in tried.items()}
    without_int8 = [steps for steps, is_good in within.items() if is_good and not has_int8(tried[steps])]
    return rungs.choose(within, without_int8)


def is_within(run: Compression, point: Point) -> bool:
    """Return whether the trained network itself lost little enough."""
    return (
        point.eager_accuracy is not None
        and point.eager_accuracy >= run.original.baseline_accuracy - run.max_drop - 1e-9
    )


def has_int8(point: Point) -> bool:
    return any(row.precision == "int8" and row.verdict == "verified" for row in point.rows.values())


def make_point(run: Compression, steps: Steps, output: Path, name: str) -> Point:
    """Return the point of some steps, made before or now. A step that is not possible is a point with the reason."""
    folder = output / POINTS / steps.folder_name()
    kept = folder / POINT
    if kept.exists():
        return Point.read(kept)
    print_line(f"{name}: {steps.describe()}")
    began = time.monotonic()
    floats = output / POINTS / steps.model_copy(update={"quantise": None}).folder_name() / FLOATS
    if steps.quantise and floats.exists() and not (folder / FLOATS).exists():
        copy_whole(floats, folder / FLOATS)  # the same training: it goes on from its end
    try:
        found = compress(run, steps, folder, f"{name}-{steps.folder_name()}")
        point = build_point(run, read_recipe(Path(found["recipe"])), output, steps.describe())
        point = replace(point, eager_accuracy=found["accuracy"])
    except UnfinishedError:  # says nothing of these steps, which --resume takes up again
        raise
    except ConfigError as error:
        point = Point(name=steps.describe(), recipe="", problem=str(error))
    folder.mkdir(parents=True, exist_ok=True)
    point = replace(point, seconds=round(time.monotonic() - began, 1))
    point.write(kept)
    return point


def copy_whole(folder: Path, target: Path) -> None:
    """Copy a folder, whole or not at all."""
    partial = target.with_name(f"{target.name}.part")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(folder, partial)
    partial.rename(target)


def build_point(run: Compression, recipe: Recipe, output: Path, name: str) -> Point:
    """Export and verify a recipe with a few backends and precisions."""
    exports = output / EXPORTS
    kept = exports / recipe.name / POINT
    if name == ORIGINAL and kept.exists():
        return Point.read(kept)
    began = time.monotonic()
    options = BuildOptions(device_type=run.device_type)
    # A floor refuses a row and keeps what was measured of it; the reference's own failure would end the build.
    recipe = without_floor(recipe)
    pairs = [pair for pair in find_candidates(recipe.backend, recipe.precision, run.device_type) if pair != EAGER_FP32]
    progress = Progress(lambda *_: None, 0)
    eager = build_reference(recipe, exports, options, progress)
    rows = [eager, *try_candidates(recipe, pairs[:TRIED], exports, options, progress)]
    folders = {str(folder_of(row, recipe, exports)): row for row in rows}
    seconds = round(time.monotonic() - began, 1)
    point = Point(name=name, recipe=str(recipe.folder / "recipe.yaml"), rows=folders, seconds=seconds)
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
    speeds = {str(folder): timing.images_per_s() for folder, timing in timings.items()}
    write_whole(output / "timings.json", orjson.dumps(speeds))
    return [
        replace(point, rows={each: _timed(row, timings.get(Path(each))) for each, row in point.rows.items()})
        for point in points
    ]


def _timed(row: Candidate, timing: Timing | None) -> Candidate:
    if timing is None or timing.problem:
        return row
    return replace(row, load_s=timing.load_s, images_per_s=timing.images_per_s(), speedup=timing.speedup)
