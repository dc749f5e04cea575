"""Results as a table for people and as a document for programs."""

import platform
import shutil
import subprocess
import sys
from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Any

from rich.box import SIMPLE
from rich.table import Column, Table

from mar_tools.load_testing.comparison import Ratio
from mar_tools.load_testing.load_tests import Result
from mar_tools.machine import describe_machine, package_versions

PACKAGES = ("torch", "torchvision", "openvino", "onnxruntime", "torchserve", "aiohttp")


def describe_run(**settings: Any) -> dict[str, Any]:
    """Where, when, with what and how: what a number means nothing without."""
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": ["python", *sys.argv],
        "machine": describe_machine(),
        "versions": find_versions(),
        **settings,
    }


def find_versions() -> dict[str, str]:
    """Of Python, wrk and the packages that matter, as far as they are installed."""
    versions = {"python": platform.python_version(), **package_versions(PACKAGES)}
    if shutil.which("wrk"):
        banner = subprocess.run(["wrk", "--version"], capture_output=True, text=True).stdout.split()
        versions["wrk"] = banner[1] if len(banner) > 1 else "unknown"
    return versions


def result_table(results: Sequence[Result], unchecked: Sequence[str] = ()) -> Table:
    """Medians over the rounds. CPU ms: of the server, for a request. unchecked: whose answers nothing was known of."""
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


def stage_table(results: Sequence[Result]) -> Table | None:
    """What the server says of its stages; None where it says nothing."""
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
    """The first served model over each of the others; None without others."""
    if not ratios:
        return None
    table = _new_table("load", f"times slower\nthan {ratios[0].baseline}", "least -\nmost")
    for ratio in ratios:
        spread = ratio.requests_per_s
        table.add_row(ratio.target, str(ratio.load), f"{spread.median:.2f}", f"{spread.least:.2f} - {spread.most:.2f}")
    return table


def _new_table(*headings: str) -> Table:
    """For 80 columns; only the targets, which come first, are folded where a line is too long."""
    columns = (Column(heading, no_wrap=True) for heading in headings)
    return Table(Column("target", overflow="fold", min_width=10), *columns, box=SIMPLE, padding=(0, 1, 0, 0))


def _format(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
