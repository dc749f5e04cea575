"""The flow: the reference, every candidate within the budget, the timing of what passed, the choice."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import orjson

from mar_tools.building.candidates import Candidate, mark_fastest, record_candidates
from mar_tools.building.table import describe_reference
from mar_tools.building.timing import TIMED_IMAGES, Timing, TimingPlan, time_exports
from mar_tools.building.trials import MB, NOT_POSSIBLE, new_trial, run_trial
from mar_tools.command_line import Announce
from mar_tools.exporting.export_folders import REFERENCE, export_folder
from mar_tools.exporting.exporters import EAGER_FP32, BackendAndPrecision, find_candidates, onnx_precisions
from mar_tools.images import choose_images
from mar_tools.machine import memory_bytes
from mar_tools.models.recipes import Recipe
from mar_tools.terminal import AnnounceStep, print_line
from mar_tools.verification.gate import read_report
from vision_serving.config import DeviceType
from vision_serving.errors import ConfigError

REFERENCE_TIMEOUT_S = 3600.0  # weights may have to be downloaded first


@dataclass(frozen=True)
class BuildOptions:
    """How much a build may take, and for what it chooses.

    budget_s: no candidate is begun later, but for the first. timeout_s: of each. batch_size: that the choice is for.
    rounds, round_s: of the timing, at batch 1 and at batch_size; one round for who is far behind.
    """

    device_type: DeviceType = "cpu"
    budget_s: float = 1200.0
    timeout_s: float = 600.0
    batch_size: int = 8
    rounds: int = 5
    round_s: float = 0.6


class Progress:
    """Counts the steps of a build for whoever listens: what comes now, how many are done, of how many."""

    def __init__(self, announce: AnnounceStep, total: int) -> None:
        self._announce = announce
        self._done = 0
        self._total = total

    def begin(self, step: str) -> None:
        self._announce(step, self._done, max(self._total, self._done))
        self._done += 1

    def expect(self, steps: int) -> None:
        """Expect so many more, which could not be counted before."""
        self._total += steps

    def skip(self, steps: int) -> None:
        """Skip so many that were expected and will not come."""
        self._total -= steps


def build_candidates(
    recipe: Recipe, exports: Path, options: BuildOptions, announce: AnnounceStep, say: Announce = print_line
) -> list[Candidate]:
    """Return a row for every candidate that the recipe leaves, and one for eager fp32.

    The fastest that passed is chosen.

    They are written to `exports/<name>/candidates.json` and into the verification.json of the chosen export.
    Raises BackendError when the recipe leaves none, ConfigError when the reference cannot be had.
    """
    pairs = find_candidates(recipe.backend, recipe.precision, options.device_type)
    if recipe.model.source == "onnx":
        # Where the recipe leaves none of those that take a file, the candidate itself says why it cannot.
        pairs = [pair for pair in pairs if pair[1] in onnx_precisions(pair[0])] or pairs
    others = [pair for pair in pairs if pair != EAGER_FP32]
    progress = Progress(announce, len({"cpu", options.device_type}) + len(others))
    eager = build_reference(recipe, exports, options, progress)
    reference = read_report(exports / recipe.name / REFERENCE)
    for line in describe_reference(reference):
        say(f"{recipe.name}: {line}")
    rows = [eager, *try_candidates(recipe, others, exports, options, progress)]
    eager, *rows = time_rows(rows, recipe, exports, options, progress)
    if eager.verdict == "verified" and EAGER_FP32 not in pairs:  # it may be compared with, but not chosen
        eager = replace(eager, verdict="reference")
    rows = mark_fastest([*rows, eager])
    (exports / recipe.name / "candidates.json").write_bytes(orjson.dumps(rows, option=orjson.OPT_INDENT_2))
    for chosen in (row for row in rows if row.verdict == "chosen"):
        record_candidates(rows, folder_of(chosen, recipe, exports), reference)
    return rows


def folder_of(row: Candidate, recipe: Recipe, exports: Path) -> Path:
    return export_folder(exports.absolute(), recipe, row.backend, row.precision, row.device)


def build_reference(recipe: Recipe, exports: Path, options: BuildOptions, progress: Progress) -> Candidate:
    """Verify eager fp32 on the CPU. Return its row for the device, which the others are timed against."""
    (exports / recipe.name).mkdir(parents=True, exist_ok=True)
    row = None
    for device_type in dict.fromkeys(("cpu", options.device_type)):
        progress.begin("reference: eager fp32" + ("" if device_type == "cpu" else f" on {device_type}"))
        trial = new_trial(recipe, exports, EAGER_FP32, device_type)  # type: ignore[arg-type]
        row = run_trial(trial.model_copy(update={"is_reference": device_type == "cpu"}), REFERENCE_TIMEOUT_S)
        if row.verdict != "verified":
            raise ConfigError(f"{recipe.name}: {row.reason.removeprefix(f'{NOT_POSSIBLE}: ')}")
    assert row is not None
    return row


def try_candidates(
    recipe: Recipe, pairs: Sequence[BackendAndPrecision], exports: Path, options: BuildOptions, progress: Progress
) -> list[Candidate]:
    """Try candidates in order until the budget is used up, the first one always."""
    rows: list[Candidate] = []
    started = time.monotonic()
    for pair in pairs:
        if rows and time.monotonic() - started >= options.budget_s:
            reason = f"the budget of {options.budget_s / 60:g} min was used up"
            rows.append(Candidate(*pair, options.device_type, "not tried", reason))
            progress.skip(1)
            continue
        progress.begin(f"export and verify {' '.join(pair)}")
        rows.append(run_trial(new_trial(recipe, exports, pair, options.device_type), options.timeout_s))
    return rows


def time_rows(
    rows: Sequence[Candidate], recipe: Recipe, exports: Path, options: BuildOptions, progress: Progress
) -> list[Candidate]:
    """Return the rows, of which rows[0] is eager, with the figures of those that passed or failed while timed."""
    passed = {folder_of(row, recipe, exports): row for row in rows if row.verdict == "verified"}
    progress.expect(len(passed) * (1 + options.rounds))  # by now it is known who passed
    images = None if recipe.verification.images is None else recipe.path(recipe.verification.images)
    plan = TimingPlan(
        images=tuple(path.absolute() for path in choose_images(images, TIMED_IMAGES)),
        batch_sizes=tuple(sorted({1, options.batch_size})),
        rounds=options.rounds,
        round_s=options.round_s,
        timeout_s=options.timeout_s,
        announce=progress.begin,
        skip=progress.skip,
    )
    sizes = {folder: (row.size_mb or 0.0) * MB for folder, row in passed.items()}
    timings = time_exports(sizes, next(iter(passed)), plan, memory_bytes(options.device_type))
    timed = {id(row): with_timing(row, timings[folder]) for folder, row in passed.items()}
    return [timed.get(id(row), row) for row in rows]


def with_timing(row: Candidate, timing: Timing) -> Candidate:
    if timing.problem:
        return replace(row, verdict="failed", reason=f"while timed: {timing.problem}", load_s=timing.load_s)
    return replace(row, load_s=timing.load_s, images_per_s=timing.images_per_s(), speedup=timing.speedup)
