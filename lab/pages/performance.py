"""The values of docs/evidence/performance.md."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from lab.pages.performance_results import (
    STOCK,
    STOCK_TUNED,
    MissingResultsError,
    PerformanceResults,
    StepResults,
    compare_runs,
)
from mar_tools.load_testing.comparison import Spread
from mar_tools.load_testing.trials import LoadResult


@dataclass(frozen=True)
class RatioGoal:
    """A ratio that has to reach a bound, or must not exceed it. measured: None where the step has not run."""

    name: str
    side: Literal["at least", "at most"]
    bound: float
    measured: Spread | None

    @property
    def verdict(self) -> str:
        if self.measured is None:
            return "not measured"
        value, bound = self.measured.median, self.bound
        met = value >= bound if self.side == "at least" else value <= bound
        return "met" if met else "not met"


def read_values(folder: Path) -> dict[str, Any]:
    results = PerformanceResults(folder)
    main = results.step("resnet50")
    return {
        "results": results,
        "main": main,
        "goals": list_goals(results),
        "again": compare_runs(main, results.step("again")) if results.has("again") else [],
        "short_list": list_servers_in_short(main),
    }


def list_servers_in_short(step: StepResults) -> list[LoadResult]:
    """Return this project, the two fastest peers and the slowest one, and both stock servers, the fastest first."""
    stock = [step.find(name) for name in (STOCK, STOCK_TUNED)]
    peers = sorted((step.find(name) for name in step.peers if name not in (STOCK, STOCK_TUNED)), key=_requests_per_s)
    chosen = peers if len(peers) < 4 else [peers[0], *peers[-2:]]
    return sorted([step.find(step.baseline), *chosen, *stock], key=_requests_per_s, reverse=True)


def list_goals(results: PerformanceResults) -> list[RatioGoal]:
    """Return the goals in the order of the page."""

    def goal(side: Literal["at least", "at most"], bound: float, name: str, measure: Callable[[], Spread]) -> RatioGoal:
        try:
            return RatioGoal(name, side, bound, measure())
        except MissingResultsError:
            return RatioGoal(name, side, bound, None)

    at_least, at_most, over_peers = partial(goal, "at least"), partial(goal, "at most"), results.over_peers

    def ratio(step: str, first: str, second: str, kind: str = "closed") -> Callable[[], Spread]:
        return lambda: results.step(step).rate_ratio(first, second, kind)

    def of_p(step: str, model: str) -> Callable[[], Spread]:
        return ratio(step, model, f"{model} (P)", "in_process")

    return [
        at_least(16, "ResNet-50 int8 / stock, out of the box (T0)", ratio("resnet50", "resnet50", STOCK)),
        at_least(7, "ResNet-50 int8 / stock, tuned (T1)", ratio("resnet50", "resnet50", STOCK_TUNED)),
        at_least(3.8, "ResNet-50 bf16 / T1", ratio("resnet50-bf16", "resnet50", STOCK_TUNED)),
        at_least(2.0, "ResNet-50 fp32 / T1", ratio("resnet50-fp32", "resnet50", STOCK_TUNED)),
        at_least(0.95, "served / P: ResNet-50 int8", of_p("resnet50", "resnet50")),
        at_least(0.95, "settings that a build writes / the benchmark's", ratio("settings", "by rule", "benchmark")),
        at_least(0.88, "served / P: MobileNetV3-L int8", of_p("mobilenet", "mobilenet_v3_large")),
        at_least(0.93, "served / P: SSDLite320 int8", of_p("ssdlite", "ssdlite320")),
        at_least(4, "SSDLite320 int8 / stock, tuned (T1)", ratio("ssdlite", "ssdlite320", STOCK_TUNED)),
        at_least(1, "this project / the fastest peer with our archive", partial(over_peers, "artifact", "resnet50")),
        at_least(5, "this project / the fastest peer its own way", partial(over_peers, "idiomatic", "idiomatic")),
        at_most(1.15, "p50 at one connection / P at batch 1", results.unloaded_over_p),
        at_least(0.9, "answers at 3 x overload / at saturation", results.overload),
        at_most(4.3, "p99 at 70 % Poisson load / unloaded p50", results.loaded_over_unloaded),
        at_most(0.4, "CPU time of a request outside the engine / T0's", results.overhead),
        at_most(0.5, "memory of a worker / of a stock worker", results.worker_memory),
        at_most(0.7, "time from start to the first right answer / stock's", results.start),
        at_most(0.35, "p50 for a photograph of 12 megapixels / stock's", results.photos),
        at_least(0.95, "the tuner's choice / the best of all settings", lambda: results.tuning().share),
    ]


def _requests_per_s(result: LoadResult) -> float:
    return result.median.requests_per_s
