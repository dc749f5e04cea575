"""A load test's progress, and its results: as tables for people, as a document for programs, drawn."""

import platform
import sys
from argparse import Namespace
from collections.abc import Sequence
from datetime import datetime, timezone
from itertools import count
from pathlib import Path
from typing import Any

import orjson
from rich.table import Column, Table

from mar_tools.load_testing.comparison import Ratio, compare_results
from mar_tools.load_testing.trials import LoadResult, LoadTrial, run_in_turns
from mar_tools.machine import describe_machine, package_versions
from mar_tools.terminal import name_column, new_table, number_column, print_tables, show_steps
from vision_serving.errors import ConfigError, VisionServingError, how_to_install

PACKAGES = ("torch", "torchvision", "openvino", "onnxruntime", "torchserve", "aiohttp")


class LoadTestError(VisionServingError):
    """Some answers were wrong, or there was none."""


def describe_run(**settings: Any) -> dict[str, Any]:
    """Return where, when, with what and how: what a number means nothing without."""
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": ["python", *sys.argv],
        "machine": describe_machine(),
        "versions": {"python": platform.python_version(), **package_versions(PACKAGES)},
        **settings,
    }


def run_all(trials: Sequence[LoadTrial], rounds: int) -> list[LoadResult]:
    """Run trials in turns, and say which."""
    with show_steps("load test") as announce:
        done, total = count(), len(trials) * rounds
        return run_in_turns(trials, rounds, lambda step: announce(step, next(done), total))


def report(
    results: Sequence[LoadResult], document: dict[str, Any], arguments: Namespace, unchecked: Sequence[str]
) -> None:
    """Print the tables, write `--json` and `--plots`. Raises LoadTestError for wrong answers, or where all failed."""
    ratios = [ratio for name in arguments.models[:1] for ratio in compare_results(results, name)]
    tables = (result_table(results, unchecked), stage_table(results), ratio_table(ratios))
    print_tables(*(table for table in tables if table is not None))
    if arguments.json:
        told = {**describe_run(**document), "results": [result.as_document() for result in results]}
        arguments.json.write_bytes(orjson.dumps(told, option=orjson.OPT_INDENT_2))
    if arguments.plots:
        draw_plots(results, arguments.models, arguments.plots)
    wrong = {result.target: result.median.wrong for result in results if result.median.wrong}
    if wrong:  # failures are a finding of a load test; wrong answers make it worthless
        raise LoadTestError(f"wrong answers: {', '.join(f'{name}: {number}' for name, number in wrong.items())}")
    answered = {result.target for result in results if result.median.requests > result.median.failed}
    if silent := sorted({result.target for result in results if result.median.failed} - answered):
        raise LoadTestError(f"no request was answered with 200: {', '.join(silent)}; predict_images.py shows the error")


def draw_plots(results: Sequence[LoadResult], models: Sequence[str], folder: Path) -> None:
    """Raises ConfigError without Matplotlib."""
    try:
        from mar_tools.load_testing.plots import plot_results
    except ModuleNotFoundError as error:
        raise ConfigError(f"--plots needs {how_to_install(error)}") from error
    for path in plot_results(results, models, folder):
        print(path)


def result_table(results: Sequence[LoadResult], unchecked: Sequence[str] = ()) -> Table:
    """Lay out medians over the rounds; CPU ms of the server per request. unchecked: whose answers nobody knows."""
    headings = ("load", "requests\n/s", "least -\nmost", "p50\nms", "p99\nms", "failed", "wrong", "CPU\nms", "PSS\nMB")
    table = _new_table(*headings)
    for result in results:
        measured = result.median
        table.add_row(
            result.target,
            str(result.load),
            _format(measured.requests_per_s),
            " - ".join(f"{rate:.3g}" for rate in result.spread),
            *(_format(measured.latency_ms.get(name)) for name in ("p50", "p99")),
            str(measured.failed),
            "?" if result.target in unchecked else str(measured.wrong),
            _format(measured.cpu_ms_per_request),
            _format(measured.peak_pss_mb),
        )
    return table


def stage_table(results: Sequence[LoadResult]) -> Table | None:
    """Return what the server says of its stages; None where it says nothing."""
    told = [result for result in results if result.median.stages_ms]
    if not told:
        return None
    stages = dict.fromkeys(stage for result in told for stage in result.median.stages_ms)
    table = _new_table("load", "batch", *(f"{stage}\nms" for stage in stages), "latency\nms")
    for result in told:
        measured = result.median
        cells = [_format(measured.stages_ms.get(stage)) for stage in stages]
        latency = _format(measured.latency_ms.get("mean"))
        table.add_row(result.target, str(result.load), _format(measured.batch_size), *cells, latency)
    return table


def ratio_table(ratios: Sequence[Ratio]) -> Table | None:
    """Return the first served model over each of the others; None without others."""
    if not ratios:
        return None
    table = _new_table("load", f"times slower\nthan {ratios[0].baseline}", "least -\nmost")
    for ratio in ratios:
        spread = ratio.requests_per_s
        table.add_row(ratio.target, str(ratio.load), f"{spread.median:.2f}", f"{spread.least:.2f} - {spread.most:.2f}")
    return table


def _new_table(*headings: str) -> Table:
    """Return a table that folds only the targets, which come first."""
    load, *figures = headings
    return new_table(name_column("target"), Column(load, no_wrap=True), *map(number_column, figures), gap=1)


def _format(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
