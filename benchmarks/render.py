"""Write docs/performance.md, and the table of README.md, from the results that run.sh left: nothing is typed by hand.

python benchmarks/render.py
"""

import statistics
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import orjson
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from mar_tools.benchmarking.comparison import Spread, divide
from mar_tools.benchmarking.load_tests import Result
from mar_tools.benchmarking.measurement import Measurement
from mar_tools.command_line import ROOT, new_parser, run
from vision_serving.errors import ConfigError

FOLDER = Path(__file__).resolve().parent
TEMPLATE = "performance.md.j2"
PAGE = ROOT / "docs" / "performance.md"
README = ROOT / "README.md"
MARKERS = ("<!-- benchmarks/render.py: begin -->", "<!-- benchmarks/render.py: end -->")
SERVED_CONNECTIONS = 16
WORKER_LOOP = "TorchModelServiceWorker.handle_connection"
WORKER_PARTS = {  # the first frame that a stack has
    "the engine": "Backend.infer",
    "decoding and preprocessing": "Preparer.prepare",
    "the rest of our handler": "VisionHandler.handle",
}
STOCK, STOCK_TUNED = "stock-default", "stock-tuned"


class MissingResultsError(ConfigError):
    """A step of run.sh has not run yet."""


class Run:
    """One results file of benchmark_model.py."""

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise MissingResultsError(f"{path}: no such results; run `bash benchmarks/run.sh {path.stem}` first")
        self.document: dict[str, Any] = orjson.loads(path.read_bytes())
        self.results = [Result.from_document(entry) for entry in self.document["results"]]

    def find(self, target: str, kind: str = "closed", amount: float | None = None) -> Result:
        """Raises ConfigError."""
        for result in self.results:
            if result.target == target and result.load.kind == kind and amount in (None, result.load.amount):
                return result
        raise ConfigError(f"the results have no {target!r} under a load of kind {kind!r}, {amount}")

    def rates(self, target: str) -> str:
        """Of the rounds of its closed loop, in order."""
        return ", ".join(f"{entry.requests_per_s:.0f}" for entry in self.find(target).rounds)

    def rate_ratio(self, first: str, second: str, kind: str = "closed") -> Spread:
        """Requests/s of one target over those of another: of a server, or (kind in_process) of P."""
        return divide(self.find(first), self.find(second, kind))

    @property
    def peers(self) -> list[str]:
        """Those that answered in every round; the others are in the tables alone."""
        return [name for name in self.document["peers"] if self.find(name).spread[0] > 0]

    @property
    def baseline(self) -> str:
        return str(next(iter(self.document["models"])))


@dataclass(frozen=True)
class Target:
    """One line of the table. bound: what the ratio shall reach, or not exceed."""

    name: str
    side: Literal["at least", "at most"]
    bound: float
    measure: Callable[[], Spread]


@dataclass(frozen=True)
class Line:
    """measured: None where the step has not run."""

    target: Target
    measured: Spread | None

    @classmethod
    def of(cls, target: Target) -> "Line":
        try:
            return cls(target, target.measure())
        except MissingResultsError:
            return cls(target, None)

    @property
    def verdict(self) -> str:
        if self.measured is None:
            return "not measured"
        value, bound = self.measured.median, self.target.bound
        met = value >= bound if self.target.side == "at least" else value <= bound
        return "met" if met else "**not met**"


class Results:
    """All results files, and the ratios that are drawn from them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.runs: dict[str, Run] = {}

    def run(self, name: str) -> Run:
        if name not in self.runs:
            self.runs[name] = Run(self.folder / f"{name}.json")
        return self.runs[name]

    @property
    def has_stacks(self) -> bool:
        return (self.folder / "worker-stacks.txt").is_file()

    def has(self, name: str) -> bool:
        return (self.folder / f"{name}.json").is_file()

    def document(self, name: str) -> dict[str, Any]:
        path = self.folder / f"{name}.json"
        if not path.is_file():
            raise MissingResultsError(f"{path}: no such results; run `bash benchmarks/run.sh {name}` first")
        found: dict[str, Any] = orjson.loads(path.read_bytes())
        return found

    def over_peers(self, mode: str, name: str) -> Spread:
        """Our ratio to the best of the peers in this mode."""
        run = self.run(name)
        peers = [peer for peer in run.peers if peer.endswith(f"-{mode}")]
        return min((run.rate_ratio("resnet50", peer) for peer in peers), key=lambda spread: spread.median)

    def unloaded_over_p(self) -> Spread:
        run = self.run("latency")
        return pair(run.find("resnet50", amount=1), run.find("resnet50 (P)", "in_process", 1), "p50", "p50")

    def loaded_over_unloaded(self) -> Spread:
        run = self.run("latency")
        best = max(entry.median.requests_per_s for entry in run.results if entry.load.kind == "closed")
        rates = [entry.load.amount for entry in run.results if entry.load.kind == "open"]
        rate = min(rates, key=lambda amount: abs(amount - 0.7 * best))
        return pair(run.find("resnet50", "open", rate), run.find("resnet50", amount=1), "p99", "p50")

    def overhead(self) -> Spread:
        run = self.run("overhead")
        return divide_by(lambda entry: entry.cpu_ms_per_request, run.find("nothing"), run.find(STOCK))

    def worker_memory(self) -> Spread:
        run = self.run("resnet50")
        return divide_by(lambda entry: entry.peak_process_mb, run.find("resnet50"), run.find(STOCK))

    def worker_shares(self) -> dict[str, float]:
        """Of the time of a worker's main thread, in per cent, by what it does; from py-spy's stacks."""
        found: Counter[str] = Counter()
        for line in (self.folder / "worker-stacks.txt").read_text(encoding="utf-8").splitlines():
            stack, _, count = line.rpartition(" ")
            if WORKER_LOOP in stack:
                part = next((part for part, frame in WORKER_PARTS.items() if frame in stack), "TorchServe")
                found[part] += int(count)
        return {part: 100 * count / found.total() for part, count in found.items()}

    def start(self) -> Spread:
        document = self.document("start")
        ratios = [entry["ours_s"] / entry["stock_s"] for entry in document["rounds"]]
        return Spread(document["ratio"], min(ratios), max(ratios))

    def photos(self) -> Spread:
        run = self.run("photos")
        return pair(run.find("resnet50_photos"), run.find(STOCK_TUNED), "p50", "p50")

    def targets(self) -> list[Target]:
        def rates(run: str, first: str, second: str, kind: str = "closed") -> Callable[[], Spread]:
            return lambda: self.run(run).rate_ratio(first, second, kind)

        def peers(mode: str, run: str) -> Callable[[], Spread]:
            return partial(self.over_peers, mode, run)

        p = partial(rates, kind="in_process")
        return [
            Target("ResNet-50 int8 / stock, as it comes (T0)", "at least", 16, rates("resnet50", "resnet50", STOCK)),
            Target("ResNet-50 int8 / stock, tuned (T1)", "at least", 7, rates("resnet50", "resnet50", STOCK_TUNED)),
            Target("ResNet-50 bf16 / T1", "at least", 3.8, rates("resnet50-bf16", "resnet50", STOCK_TUNED)),
            Target("ResNet-50 fp32 / T1", "at least", 2.0, rates("resnet50-fp32", "resnet50", STOCK_TUNED)),
            Target("served / P: ResNet-50 int8", "at least", 0.95, p("resnet50", "resnet50", "resnet50 (P)")),
            Target(
                "served / P: MobileNetV3-L int8",
                "at least",
                0.88,
                p("mobilenet", "mobilenet_v3_large", "mobilenet_v3_large (P)"),
            ),
            Target("served / P: SSDLite320 int8", "at least", 0.93, p("ssdlite", "ssdlite320", "ssdlite320 (P)")),
            Target("SSDLite320 int8 / stock, tuned", "at least", 4, rates("ssdlite", "ssdlite320", STOCK_TUNED)),
            Target("ours / the fastest peer with our model and code", "at least", 1, peers("artifact", "resnet50")),
            Target(
                "ours / the fastest peer's own way", "at least", 5, partial(self.over_peers, "idiomatic", "idiomatic")
            ),
            Target("p50 at one connection / P at batch 1", "at most", 1.15, self.unloaded_over_p),
            Target("p99 at 70 % Poisson load / unloaded p50", "at most", 4.3, self.loaded_over_unloaded),
            Target("CPU time of a request outside the engine / T0's", "at most", 0.4, self.overhead),
            Target("memory of a worker / a stock worker's", "at most", 0.5, self.worker_memory),
            Target("start until the first right answer / stock's", "at most", 0.7, self.start),
            Target("12-megapixel photograph, p50 / stock's", "at most", 0.35, self.photos),
        ]


def pair(first: Result, second: Result, first_latency: str, second_latency: str) -> Spread:
    """A latency of one over a latency of the other."""
    upper = [entry.latency_ms[first_latency] for entry in first.rounds]
    lower = [entry.latency_ms[second_latency] for entry in second.rounds]
    return spread_of(upper, lower)


def divide_by(value: Callable[[Measurement], float | None], first: Result, second: Result) -> Spread:
    """Raises ConfigError where a round does not know it."""
    columns = [[value(entry) for entry in result.rounds] for result in (first, second)]
    known = [[found for found in column if found is not None] for column in columns]
    if [len(column) for column in known] != [len(column) for column in columns]:
        raise ConfigError(f"a round of {first.target} or {second.target} does not tell what was asked")
    return spread_of(*known)


def spread_of(upper: list[float], lower: list[float]) -> Spread:
    within = [above / below for above, below in zip(upper, lower, strict=True)]
    return Spread(statistics.median(upper) / statistics.median(lower), min(within), max(within))


def agreement(first: Run, second: Run) -> Iterator[tuple[str, Spread, Spread, bool]]:
    """The ratios of two runs of one command, and whether the second median lies within the first one's spread."""
    for name in [*first.peers, f"{first.baseline} (P)"]:
        kind = "in_process" if name.endswith("(P)") else "closed"
        try:
            before, after = (run.rate_ratio(run.baseline, name, kind) for run in (first, second))
        except ConfigError:  # one of them did not start in the second run
            continue
        yield name, before, after, before.least <= after.median <= before.most


def render_page(results: Results) -> str:
    environment = Environment(
        loader=FileSystemLoader(FOLDER), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["g"] = lambda value: "" if value is None else f"{value:.4g}"
    environment.filters["g2"] = lambda value: f"{value:.2g}"
    environment.filters["spread"] = describe_spread
    return environment.get_template(TEMPLATE).render(
        results=results,
        lines=[Line.of(target) for target in results.targets()],
        agreement=list(agreement(results.run("resnet50"), results.run("again"))) if results.has("again") else [],
    )


def describe_spread(spread: Spread | None) -> str:
    return "" if spread is None else f"{spread.median:.2f} ({spread.least:.2f} - {spread.most:.2f})"


def readme_table(results: Results) -> str:
    """Ours, and every other server with the same image size, in requests/s."""
    run = results.run("resnet50")
    rows = [
        "| server | serves | requests/s | ours / it | p50 ms | p99 ms |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for result in sorted(run.results, key=lambda entry: -entry.median.requests_per_s):
        if result.load.kind != "closed" or not result.median.latency_ms:
            continue
        name, _, mode = result.target.partition("-")
        what = {
            "": "int8, as built here",
            "artifact": "the same archive and code",
            "idiomatic": "eager fp32, its own way",
        }
        what |= {"default": "fp32, as it comes", "tuned": "fp32, tuned"}
        ratio = f"{run.rate_ratio(run.baseline, result.target).median:.2f}" if result.target in run.peers else ""
        median = result.median
        shown = (
            "**ours**" if result.target == run.baseline else f"TorchServe, {name} handler" if name == "stock" else name
        )
        latencies = " | ".join(f"{median.latency_ms[key]:.0f}" for key in ("p50", "p99"))
        rows.append(f"| {shown} | {what[mode]} | {median.requests_per_s:.1f} | {ratio} | {latencies} |")
    return "\n".join(rows)


def replace_between(text: str, markers: tuple[str, str], content: str) -> str:
    """Raises ConfigError where the markers are missing."""
    before, found, rest = text.partition(markers[0])
    _, ends, after = rest.partition(markers[1])
    if not found or not ends:
        raise ConfigError(f"README.md: expected the lines {markers[0]!r} and {markers[1]!r} around the table")
    return f"{before}{markers[0]}\n{content}\n{markers[1]}{after}"


def main() -> None:
    parser = new_parser(__doc__)
    parser.add_argument("--results", type=Path, default=FOLDER / "results")
    parser.add_argument("--check", action="store_true", help="write nothing; fail where a file is not what it would be")
    arguments = parser.parse_args()
    results = Results(arguments.results)
    readme = replace_between(README.read_text(encoding="utf-8"), MARKERS, readme_table(results))
    for path, text in ((PAGE, render_page(results)), (README, readme)):
        if not arguments.check:
            path.write_text(text, encoding="utf-8")
        elif path.read_text(encoding="utf-8") != text:
            raise ConfigError(f"{path}: not what the results give; run `python benchmarks/render.py`")
        print(path)


if __name__ == "__main__":
    run(main)
