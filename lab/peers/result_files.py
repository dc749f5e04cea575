"""The results that run.sh left, and the ratios that are drawn from them."""

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
    """A step of run.sh has not run yet."""


class Run:
    """One results file of benchmark_model.py."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.document = document
        self.results = [LoadResult.from_document(entry) for entry in document["results"]]

    def find(self, target: str, kind: str = "closed", amount: float | None = None) -> LoadResult:
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

    def ratio(self, first: str, second: str, value: Value) -> Spread:
        """Of something else that two closed loops tell."""
        return divide_rounds(*(_values(self.find(name), value) for name in (first, second)))

    @property
    def peers(self) -> list[str]:
        """Those that answered in every round; the others are in the tables alone."""
        return [name for name in self.document["peers"] if self.find(name).spread[0] > 0]

    @property
    def baseline(self) -> str:
        return str(next(iter(self.document["models"])))


@dataclass(frozen=True)
class Tuning:
    """What tune_model.py chose, beside the best of all settings: both as confirm_tuning.py measured them.

    share: of the best rate. candidates: settings and their rates, requests/s in each round, the best first.
    trials, seconds: of the run over all settings and of the search.
    """

    candidates: tuple[dict[str, Any], ...]
    share: Spread
    trials: tuple[int, int]
    seconds: tuple[float, float]


class ResultFiles:
    """All of a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._runs: dict[str, Run] = {}

    def has(self, name: str) -> bool:
        return (self.folder / f"{name}.json").is_file()

    def document(self, name: str) -> dict[str, Any]:
        """Raises MissingResultsError."""
        path = self.folder / f"{name}.json"
        if not path.is_file():
            raise MissingResultsError(f"{path}: no such results; run `bash lab/measure_performance.sh {name}` first")
        found: dict[str, Any] = orjson.loads(path.read_bytes())
        return found

    def run(self, name: str) -> Run:
        """Raises MissingResultsError."""
        if name not in self._runs:
            self._runs[name] = Run(self.document(name))
        return self._runs[name]

    def over_peers(self, mode: str, name: str) -> Spread:
        """Our ratio to the best of the peers in this mode."""
        run = self.run(name)
        peers = [peer for peer in run.peers if peer.endswith(f"-{mode}")]
        return min((run.rate_ratio("resnet50", peer) for peer in peers), key=lambda spread: spread.median)

    def unloaded_over_p(self) -> Spread:
        run = self.run("latency")
        unloaded, alone = run.find("resnet50", amount=1), run.find("resnet50 (P)", "in_process", 1)
        return divide_rounds(_values(unloaded, _p50), _values(alone, _p50))

    def loaded_over_unloaded(self) -> Spread:
        run = self.run("latency")
        best = max(entry.median.requests_per_s for entry in run.results if entry.load.kind == "closed")
        rates = [entry.load.amount for entry in run.results if entry.load.kind == "open"]
        rate = min(rates, key=lambda amount: abs(amount - 0.7 * best))
        loaded, unloaded = run.find("resnet50", "open", rate), run.find("resnet50", amount=1)
        return divide_rounds(_values(loaded, lambda entry: entry.latency_ms["p99"]), _values(unloaded, _p50))

    def photos(self) -> Spread:
        return self.run("photos").ratio("resnet50_photos", STOCK_TUNED, _p50)

    def overhead(self) -> Spread:
        return self.run("overhead").ratio("nothing", STOCK, lambda entry: entry.cpu_ms_per_request)

    def worker_memory(self) -> Spread:
        return self.run("resnet50").ratio("resnet50", STOCK, lambda entry: entry.peak_process_mb)

    def start(self) -> Spread:
        rounds = self.document("start")["rounds"]
        return divide_rounds(*([entry[name] for entry in rounds] for name in ("ours_s", "stock_s")))

    def tuning(self) -> "Tuning":
        """Raises MissingResultsError."""
        everything, search = self.document("tuning-exhaustive"), self.document("tuning-search")
        candidates = self.document("tuning-confirmed")["candidates"]
        candidates.sort(key=lambda entry: statistics.median(entry["rates"]), reverse=True)
        (found,) = (entry for entry in candidates if entry["found"])
        return Tuning(
            candidates=tuple(candidates),
            share=divide_rounds(found["rates"], candidates[0]["rates"]),
            trials=(len(everything["trials"]), len(search["trials"])),
            seconds=(everything["seconds"], search["seconds"]),
        )

    def found_of_best(self) -> Spread:
        return self.tuning().share

    @cached_property
    def worker_shares(self) -> dict[str, float]:
        """Of the time of a worker's main thread, in per cent, by what it does; from py-spy's stacks. Empty without."""
        stacks = self.folder / "worker-stacks.txt"
        found: Counter[str] = Counter()
        for line in stacks.read_text(encoding="utf-8").splitlines() if stacks.is_file() else ():
            stack, _, count = line.rpartition(" ")
            if WORKER_LOOP in stack:
                part = next((part for part, frame in WORKER_PARTS.items() if frame in stack), "TorchServe")
                found[part] += int(count)
        return {part: 100 * count / found.total() for part, count in found.items()}


def agreement(first: Run, second: Run) -> Iterator[tuple[str, Spread, Spread, bool]]:
    """The ratios of two runs of one command, and whether the second median lies within the first one's spread."""
    for name in [*first.peers, f"{first.baseline} (P)"]:
        kind = "in_process" if name.endswith("(P)") else "closed"
        try:
            before, after = (run.rate_ratio(run.baseline, name, kind) for run in (first, second))
        except ConfigError:  # one of them did not start in the second run
            continue
        yield name, before, after, before.least <= after.median <= before.most


def _p50(measured: Measurement) -> float:
    return measured.latency_ms["p50"]


def _values(result: LoadResult, value: Value) -> list[float]:
    """Raises ConfigError where a round does not know it."""
    found = [value(entry) for entry in result.rounds]
    if None in found:
        raise ConfigError(f"a round of {result.target} does not tell what was asked")
    return [entry for entry in found if entry is not None]
