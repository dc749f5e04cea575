"""Plots of results, each as PNG and SVG: throughput against latency, servers side by side, a request's stages."""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

from mar_tools.load_testing.trials import IN_PROCESS, LoadResult

FORMATS = ("png", "svg")
DPI = 150
REST = "queue, transport, HTTP"  # of the mean latency, what no stage accounts for
OURS, OTHERS, GREY = "#d55e00", "#0072b2", "#555555"
WHITE = {"facecolor": "white", "edgecolor": "none", "pad": 1}
COLOURS = (OTHERS, OURS, "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#999999")  # told apart by all


def plot_results(results: Sequence[LoadResult], models: Sequence[str], folder: Path) -> list[Path]:
    """Write what the results allow into a folder; return the paths. models: the targets that this project serves."""
    figures = {
        "throughput_latency": plot_throughput_latency(results, models),
        "stages": plot_stages(results, models),
        "servers": plot_servers(results, models),
    }
    return write_figures({name: figure for name, figure in figures.items() if figure is not None}, folder)


def write_figures(figures: Mapping[str, Figure], folder: Path, formats: Sequence[str] = FORMATS) -> list[Path]:
    """Write files that are the same for the same figures, whenever they are drawn."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    with matplotlib.rc_context({"svg.hashsalt": "vision-serving", "svg.fonttype": "none"}):
        for name, figure in figures.items():
            for suffix in formats:
                path = folder / f"{name}.{suffix}"
                figure.savefig(path, dpi=DPI, metadata={"Date": None} if suffix == "svg" else None)
                written.append(path)
    return written


def use_decimal_log_scale(axes: Axes) -> None:
    """Label a logarithmic y axis 10, 20, 50, 100 instead of in powers of ten."""
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(ScalarFormatter())
    axes.yaxis.set_minor_formatter(NullFormatter())


def name_target(target: str, results: Sequence[LoadResult], models: Sequence[str]) -> str:
    """Return "this project" for the one model of ours that stands beside other servers, and names as they are else."""
    others = {result.target.removesuffix(IN_PROCESS) for result in results} - set(models)
    return "this project" if others and len(models) == 1 and target == models[0] else target


def plot_throughput_latency(results: Sequence[LoadResult], models: Sequence[str]) -> Figure | None:
    """Draw p50 (solid) and p99 (dashed) over requests/s; None where no model or server had several loads."""
    served = [entry for entry in results if entry.load.kind != "in_process" and entry.median.latency_ms]
    if max(Counter(entry.target for entry in served).values(), default=0) < 2:
        return None
    figure = Figure(figsize=(8, 5.5), layout="constrained")
    axes = figure.add_subplot()
    for target, colour in zip(dict.fromkeys(entry.target for entry in served), cycle(COLOURS)):
        for kind, marker in (("closed", "o"), ("open", "s")):
            own = sorted(
                (entry for entry in served if (entry.target, entry.load.kind) == (target, kind)),
                key=lambda entry: entry.load.amount,
            )
            if own:
                _draw_curves(axes, own, f"{name_target(target, results, models)}, {kind} loop", colour, marker)
    for entry in results:
        if entry.load.kind == "in_process":
            name = f"{entry.target}, {entry.load}: no server"
            axes.axvline(entry.median.requests_per_s, linestyle=":", color=GREY, label=name)
    axes.set(title=f"Latency over throughput: {', '.join(models) or served[0].target}")
    axes.set(xlabel="throughput, requests/s", ylabel="latency, ms (logarithmic): p50 solid, p99 dashed", xlim=(0, None))
    use_decimal_log_scale(axes)
    axes.grid(visible=True, which="both", alpha=0.3)
    figure.legend(loc="outside lower center", ncols=3, fontsize="small")
    return figure


def _draw_curves(axes: Axes, results: Sequence[LoadResult], label: str, colour: str, marker: str) -> None:
    rates = [entry.median.requests_per_s for entry in results]
    for percentile, style in (("p50", "-"), ("p99", "--")):
        latencies = [entry.median.latency_ms[percentile] for entry in results]
        name = label if percentile == "p50" else None
        axes.plot(rates, latencies, linestyle=style, marker=marker, color=colour, label=name, markersize=5)
        for entry, rate, latency in zip(results, rates, latencies, strict=True):
            if entry.load.kind == "closed" and percentile == "p50":
                axes.annotate(str(entry.load), (rate, latency), xytext=(6, -11), textcoords="offset points", fontsize=8)


def plot_servers(results: Sequence[LoadResult], models: Sequence[str]) -> Figure | None:
    """Draw requests/s of models or servers under one closed loop: medians, from the least to the most. P is a line."""
    compared = [entry for entry in results if entry.load.kind == "closed"]
    loads = {entry.load for entry in compared}
    if len(loads) != 1 or len(compared) < 2:
        return None
    ranked = sorted(compared, key=lambda entry: entry.median.requests_per_s)
    rates = [entry.median.requests_per_s for entry in ranked]
    ends = [entry.spread for entry in ranked]
    reach = [[rate - least for rate, (least, _) in zip(rates, ends, strict=True)]]
    reach += [[most - rate for rate, (_, most) in zip(rates, ends, strict=True)]]
    figure = Figure(figsize=(8, 1.6 + 0.34 * len(ranked)), layout="constrained")
    axes = figure.add_subplot()
    names = [name_target(entry.target, results, models) for entry in ranked]
    colours = [OURS if entry.target in models else OTHERS for entry in ranked]
    axes.barh(names, rates, xerr=reach, color=colours, ecolor=GREY, capsize=3)
    for number, (rate, (_, most)) in enumerate(zip(rates, ends, strict=True)):
        axes.annotate(f"{rate:.4g}", (most, number), xytext=(6, 0), textcoords="offset points", va="center", bbox=WHITE)
    limit = [most for _, most in ends]
    for entry in results:
        if entry.load.kind == "in_process":
            limit.append(entry.median.requests_per_s)
            name = f"{entry.target.replace(IN_PROCESS, '')} without a server (P): {limit[-1]:.4g} requests/s"
            axes.axvline(limit[-1], linestyle="--", color="black", label=name)
    amount = next(iter(loads)).amount
    connections = f"{amount:g} connection{'s' * (amount != 1)}"
    axes.set(title=f"Throughput of {', '.join(models) or 'each server'} in a closed loop of {connections}")
    axes.set(xlabel="requests/s: median of the rounds, with the least and the most", xlim=(0, 1.12 * max(limit)))
    if len(limit) > len(ranked):
        figure.legend(loc="outside lower center", fontsize="small")
    return figure


def plot_stages(results: Sequence[LoadResult], models: Sequence[str]) -> Figure | None:
    """Draw the mean latency of each trial in its stages, and the rest of it. Return None without stages."""
    told = [entry for entry in results if entry.median.stages_ms and entry.median.latency_ms]
    if not told:
        return None
    figure = Figure(figsize=(8, 1.7 + 0.45 * len(told)), layout="constrained")
    axes = figure.add_subplot()
    names = [f"{name_target(entry.target, results, models)}\n{entry.load}" for entry in told]
    stages = list(dict.fromkeys(stage for entry in told for stage in entry.median.stages_ms))
    ends = [0.0] * len(told)
    for stage, colour in zip([*stages, REST], cycle(COLOURS)):
        widths = [stage_ms(entry, stage) for entry in told]
        axes.barh(names, widths, left=ends, color=colour, label=stage)
        ends = [end + width for end, width in zip(ends, widths, strict=True)]
    axes.set(title=f"Where the time of a request goes: {', '.join(models) or told[0].target}")
    axes.set(xlabel="mean ms of a request, which shares its stages with its batch")
    axes.invert_yaxis()
    figure.legend(loc="outside lower center", ncols=len(stages) + 1, fontsize="small")
    return figure


def stage_ms(result: LoadResult, stage: str) -> float:
    """Return a stage's share of the mean latency, or the rest of it."""
    measured = result.median
    if stage == REST:
        return max(0.0, measured.latency_ms["mean"] - sum(measured.stages_ms.values()))
    return measured.stages_ms.get(stage, 0.0)
