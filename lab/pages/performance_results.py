"""Read the results of measure_performance.sh, and take ratios of them."""

import statistics
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import orjson

from mar_tools.load_testing.comparison import Spread, divide, divide_rounds
from mar_tools.load_testing.measurement import Measurement
from mar_tools.load_testing.trials import LoadResult
from vision_serving.errors import ConfigError

Value = Callable[[Measurement], float | None]

STOCK, STOCK_TUNED = "stock-default", "stock-tuned"
WORKER_LOOP = "TorchModelServiceWorker.handle_connection"
WORKER_PARTS = {  # the first frame that a stack has
    "the engine": "Backend.infer",
    "decoding and preprocessing": "Preparer.prepare",
    "the rest of our handler": "VisionHandler.handle",
}


class MissingResultsError(ConfigError):
    """A step of measure_performance.sh has not run yet."""


class StepResults:
    """The results of one step: several servers, loaded in turns."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.document = document
        self.results = [LoadResult.from_document(entry) for entry in document["results"]]

    def find(self, target: str, kind: str = "closed", amount: float | None = None) -> LoadResult:
        """Return one target under one load. Raises ConfigError."""
        for result in self.results:
            if result.target == target and result.load.kind == kind and amount in (None, result.load.amount):
                return result
        raise ConfigError(f"the results have no {target!r} under a load of kind {kind!r}, {amount}")

    def rates(self, target: str) -> str:
        """List the requests/s of the rounds of its closed loop, in order."""
        return ", ".join(f"{entry.requests_per_s:.0f}" for entry in self.find(target).rounds)

    def rate_ratio(self, first: str, second: str, kind: str = "closed") -> Spread:
        """Divide the requests/s of one target by those of another: of a server, or (kind in_process) of P."""
        return divide(self.find(first), self.find(second, kind))

    def ratio(self, first: str, second: str, value: Value) -> Spread:
        """Divide another figure of two closed loops."""
        return divide_rounds(*(_values(self.find(name), value) for name in (first, second)))

    @property
    def peers(self) -> list[str]:
        """Return the peers that answered in every round. The others are in the tables alone."""
        return [name for name in self.document["peers"] if self.find(name).spread[0] > 0]

    @property
    def baseline(self) -> str:
        return str(next(iter(self.document["models"])))


@dataclass(frozen=True)
class TuningComparison:
    """The choice of tune_model.py beside the best of all settings, as confirm_tuning.py measured them.

    share: the choice's rate over the best one. candidates: settings with their requests/s in each round, best first.
    trials, seconds: of the run over all settings, and of the search.
    """

    candidates: tuple[dict[str, Any], ...]
    share: Spread
    trials: tuple[int, int]
    seconds: tuple[float, float]


class PerformanceResults:
    """The results of all steps that have run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._steps: dict[str, StepResults] = {}

    def has(self, name: str) -> bool:
        return (self.folder / f"{name}.json").is_file()

    def document(self, name: str) -> dict[str, Any]:
        """Read one results file. Raises MissingResultsError."""
        path = self.folder / f"{name}.json"
        if not path.is_file():
            raise MissingResultsError(f"{path}: no such results; run `bash lab/measure_performance.sh {name}` first")
        found: dict[str, Any] = orjson.loads(path.read_bytes())
        return found

    def step(self, name: str) -> StepResults:
        """Read one step's results once. Raises MissingResultsError."""
        if name not in self._steps:
            self._steps[name] = StepResults(self.document(name))
        return self._steps[name]

    def over_peers(self, mode: str, name: str) -> Spread:
        """Return our ratio to the fastest peer in this mode."""
        step = self.step(name)
        peers = [peer for peer in step.peers if peer.endswith(f"-{mode}")]
        return min((step.rate_ratio("resnet50", peer) for peer in peers), key=lambda spread: spread.median)

    def unloaded_over_p(self) -> Spread:
        step = self.step("latency")
        unloaded, alone = step.find("resnet50", amount=1), step.find("resnet50 (P)", "in_process", 1)
        return divide_rounds(_values(unloaded, _p50), _values(alone, _p50))

    def loaded_over_unloaded(self) -> Spread:
        step = self.step("latency")
        best = max(entry.median.requests_per_s for entry in step.results if entry.load.kind == "closed")
        rates = [entry.load.amount for entry in step.results if entry.load.kind == "open"]
        rate = min(rates, key=lambda amount: abs(amount - 0.7 * best))
        loaded, unloaded = step.find("resnet50", "open", rate), step.find("resnet50", amount=1)
        return divide_rounds(_values(loaded, lambda entry: entry.latency_ms["p99"]), _values(unloaded, _p50))

    def limit_of_shared_cores(self) -> float:
        """Return the most that served / P can be where frontend and client take their CPU time from the workers."""
        step = self.step("settings")
        alone, served = step.find("resnet50 (P)", "in_process"), step.find("benchmark")
        of_p = _values(alone, lambda entry: entry.cpu_ms_per_request)
        others = (
            _values(served, lambda entry: entry.root_cpu_ms_per_request),
            _values(served, lambda entry: entry.client_cpu_ms_per_request),
        )
        own, *taken = map(statistics.median, (of_p, *others))
        return own / (own + sum(taken))

    def overload(self) -> Spread:
        """Return the right answers a second of the largest open loop over those of the best closed one."""
        step = self.step("growth")
        closed, opened = ([entry for entry in step.results if entry.load.kind == kind] for kind in ("closed", "open"))
        best = max(closed, key=lambda entry: entry.median.requests_per_s)
        return divide(max(opened, key=lambda entry: entry.load.amount), best)

    def by_size(self) -> list[tuple[float, LoadResult]]:
        """Return the results over the size of the pictures, in megapixels. Empty where the step has not run."""
        found = []
        for path in self.folder.glob("size-*.json"):
            step = self.step(path.stem)
            width, height = map(int, path.stem.removeprefix("size-").split("x"))
            found.append((width * height / 1e6, step.find(step.baseline)))
        return sorted(found, key=lambda pair: pair[0])

    def photos(self) -> Spread:
        return self.step("photos").ratio("resnet50_photos", STOCK_TUNED, _p50)

    def overhead(self) -> Spread:
        return self.step("overhead").ratio("nothing", STOCK, lambda entry: entry.cpu_ms_per_request)

    def worker_memory(self) -> Spread:
        return self.step("resnet50").ratio("resnet50", STOCK, lambda entry: entry.peak_process_mb)

    def start(self) -> Spread:
        rounds = self.document("start")["rounds"]
        return divide_rounds(*([entry[name] for entry in rounds] for name in ("ours_s", "stock_s")))

    def tuning(self) -> TuningComparison:
        """Compare the tuner's choice with all settings. Raises MissingResultsError."""
        everything, search = self.document("tuning-exhaustive"), self.document("tuning-search")
        candidates = self.document("tuning-confirmed")["candidates"]
        candidates.sort(key=lambda entry: statistics.median(entry["rates"]), reverse=True)
        (found,) = (entry for entry in candidates if entry["found"])
        return TuningComparison(
            candidates=tuple(candidates),
            share=divide_rounds(found["rates"], candidates[0]["rates"]),
            trials=(len(everything["trials"]), len(search["trials"])),
            seconds=(everything["seconds"], search["seconds"]),
        )

    @cached_property
    def worker_shares(self) -> dict[str, float]:
        """Return the per cent of a worker's main thread that each part takes. Empty without py-spy's stacks."""
        stacks = self.folder / "worker-stacks.txt"
        found: Counter[str] = Counter()
        for line in stacks.read_text(encoding="utf-8").splitlines() if stacks.is_file() else ():
            stack, _, count = line.rpartition(" ")
            if WORKER_LOOP in stack:
                part = next((part for part, frame in WORKER_PARTS.items() if frame in stack), "TorchServe")
                found[part] += int(count)
        return {part: 100 * count / found.total() for part, count in found.items()}


def compare_runs(first: StepResults, second: StepResults) -> Iterator[tuple[str, Spread, Spread, bool]]:
    """Yield each ratio in two runs, and whether the second median lies within the first one's spread."""
    for name in [*first.peers, f"{first.baseline} (P)"]:
        kind = "in_process" if name.endswith("(P)") else "closed"
        try:
            before, after = (step.rate_ratio(step.baseline, name, kind) for step in (first, second))
        except ConfigError:  # one of them did not start in the second run
            continue
        yield name, before, after, before.least <= after.median <= before.most


def _p50(measured: Measurement) -> float:
    return measured.latency_ms["p50"]


def _values(result: LoadResult, value: Value) -> list[float]:
    """Return a figure of each round. Raises ConfigError where a round lacks it."""
    found = [value(entry) for entry in result.rounds]
    if None in found:
        raise ConfigError(f"a round of {result.target} lacks the figure")
    return [entry for entry in found if entry is not None]
