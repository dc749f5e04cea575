"""Pictures of results, each as PNG and SVG: throughput against latency, servers side by side, a request's stages."""

from collections import Counter
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import ScalarFormatter

from mar_tools.load_testing.trials import LoadResult

FORMATS = ("png", "svg")
DPI = 150
REST = "queue, transport, HTTP"  # of the mean latency, what no stage accounts for
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#999999")  # told apart by all


def plot_results(results: Sequence[LoadResult], folder: Path) -> list[Path]:
    """Write what the results allow into a folder; the paths of the files."""
    folder.mkdir(parents=True, exist_ok=True)
    figures = {
        "throughput_latency": plot_throughput_latency(results),
        "stages": plot_stages(results),
        "servers": plot_servers(results),
    }
    written = []
    with matplotlib.rc_context({"svg.hashsalt": "vision-serving", "svg.fonttype": "none"}):
        for name, figure in figures.items():
            if figure is None:
                continue
            for suffix in FORMATS:
                path = folder / f"{name}.{suffix}"
                figure.savefig(path, dpi=DPI, metadata={"Date": None} if suffix == "svg" else None)
                written.append(path)
    return written


def plot_throughput_latency(results: Sequence[LoadResult]) -> Figure | None:
    """Plot p50 (solid) and p99 (dashed) over requests/s: circles are closed loops, squares open ones, dotted lines P.

    None where no model or server was under several loads.
    """
    served = [entry for entry in results if entry.load.kind != "in_process" and entry.median.latency_ms]
    if max(Counter(entry.target for entry in served).values(), default=0) < 2:
        return None
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    for target, colour in zip(dict.fromkeys(entry.target for entry in served), cycle(COLOURS)):
        for kind, marker in (("closed", "o"), ("open", "s")):
            own = sorted(
                (entry for entry in served if (entry.target, entry.load.kind) == (target, kind)),
                key=lambda entry: entry.load.amount,
            )
            if own:
                _draw_curves(axes, own, f"{target}, {kind} loop", colour, marker)
    for entry in (entry for entry in results if entry.load.kind == "in_process"):
        name = f"{entry.target}, {entry.load}"
        axes.axvline(entry.median.requests_per_s, linestyle=":", color="#555555", label=name)
    axes.set(xlabel="requests/s", ylabel="latency, ms: p50 (solid) and p99 (dashed)", yscale="log", xlim=(0, None))
    axes.yaxis.set_major_formatter(ScalarFormatter())
    axes.yaxis.set_minor_formatter(ScalarFormatter())
    axes.grid(visible=True, which="both", alpha=0.3)
    axes.legend()
    return figure


def _draw_curves(axes: Axes, results: Sequence[LoadResult], label: str, colour: str, marker: str) -> None:
    rates = [entry.median.requests_per_s for entry in results]
    for percentile, style in (("p50", "-"), ("p99", "--")):
        latencies = [entry.median.latency_ms[percentile] for entry in results]
        name = label if percentile == "p50" else None
        axes.plot(rates, latencies, linestyle=style, marker=marker, color=colour, label=name, markersize=5)
        for entry, rate, latency in zip(results, rates, latencies, strict=True):
            if entry.load.kind == "closed" and percentile == "p50":
                axes.annotate(f"{entry.load.amount:g}", (rate, latency), xytext=(4, -11), textcoords="offset points")


def plot_servers(results: Sequence[LoadResult]) -> Figure | None:
    """Plot requests/s of models or servers under one closed loop, and of P: medians, and from the least to the most."""
    compared = [entry for entry in results if entry.load.kind == "closed"]
    loads = {entry.load for entry in compared}
    if len(loads) != 1 or len(compared) < 2:
        return None
    compared += [entry for entry in results if entry.load.kind == "in_process"]
    ranked = sorted(compared, key=lambda entry: entry.median.requests_per_s)
    rates = [entry.median.requests_per_s for entry in ranked]
    ends = [entry.spread for entry in ranked]
    reach = [[rate - least for rate, (least, _) in zip(rates, ends, strict=True)]]
    reach += [[most - rate for rate, (_, most) in zip(rates, ends, strict=True)]]
    figure = Figure(figsize=(8, 1.0 + 0.32 * len(ranked)), layout="constrained")
    axes = figure.add_subplot()
    first = compared[0].target
    colours = ["#d55e00" if entry.target == first else "#0072b2" for entry in ranked]
    axes.barh([entry.target for entry in ranked], rates, xerr=reach, color=colours, ecolor="#555555", capsize=3)
    for number, (rate, (_, most)) in enumerate(zip(rates, ends, strict=True)):
        axes.annotate(f"{rate:.4g}", (most, number), xytext=(6, 0), textcoords="offset points", va="center")
    axes.set(xlabel=f"requests/s, closed loop of {next(iter(loads))}", xlim=(0, 1.1 * max(most for _, most in ends)))
    return figure


def plot_stages(results: Sequence[LoadResult]) -> Figure | None:
    """Return the mean latency of each trial in its stages, and the rest of it. None without stages."""
    told = [entry for entry in results if entry.median.stages_ms and entry.median.latency_ms]
    if not told:
        return None
    figure = Figure(figsize=(8, 1.2 + 0.45 * len(told)), layout="constrained")
    axes = figure.add_subplot()
    names = [f"{entry.target}\n{entry.load}" for entry in told]
    stages = list(dict.fromkeys(stage for entry in told for stage in entry.median.stages_ms))
    ends = [0.0] * len(told)
    for stage, colour in zip([*stages, REST], cycle(COLOURS)):
        widths = [stage_ms(entry, stage) for entry in told]
        axes.barh(names, widths, left=ends, color=colour, label=stage)
        ends = [end + width for end, width in zip(ends, widths, strict=True)]
    axes.set(xlabel="ms of a request (means; a request shares its stages with its batch)")
    axes.invert_yaxis()
    figure.legend(loc="outside upper center", ncols=len(stages) + 1, fontsize="small")
    return figure


def stage_ms(result: LoadResult, stage: str) -> float:
    """Return a stage's share of the mean latency, or the rest of it."""
    measured = result.median
    if stage == REST:
        return max(0.0, measured.latency_ms["mean"] - sum(measured.stages_ms.values()))
    return measured.stages_ms.get(stage, 0.0)
