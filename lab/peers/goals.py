"""What is to be reached: one ratio a line of the table in docs/evidence/performance.md."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from lab.peers.result_files import STOCK, STOCK_TUNED, MissingResultsError, ResultFiles
from mar_tools.load_testing.comparison import Spread


@dataclass(frozen=True)
class Goal:
    """bound: what the ratio shall reach, or not exceed. measured: None where the step has not run."""

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
        return "met" if met else "**not met**"


def list_goals(results: ResultFiles) -> list[Goal]:
    def ratio(run: str, first: str, second: str, kind: str = "closed") -> Callable[[], Spread]:
        return lambda: results.run(run).rate_ratio(first, second, kind)

    def of_p(run: str, model: str) -> Callable[[], Spread]:
        return ratio(run, model, f"{model} (P)", "in_process")

    def fastest_peer(mode: str, run: str) -> Callable[[], Spread]:
        return lambda: results.over_peers(mode, run)

    def at_least(bound: float, name: str, measure: Callable[[], Spread]) -> Goal:
        return Goal(name, "at least", bound, _try(measure))

    def at_most(bound: float, name: str, measure: Callable[[], Spread]) -> Goal:
        return Goal(name, "at most", bound, _try(measure))

    return [
        at_least(16, "ResNet-50 int8 / stock, as it comes (T0)", ratio("resnet50", "resnet50", STOCK)),
        at_least(7, "ResNet-50 int8 / stock, tuned (T1)", ratio("resnet50", "resnet50", STOCK_TUNED)),
        at_least(3.8, "ResNet-50 bf16 / T1", ratio("resnet50-bf16", "resnet50", STOCK_TUNED)),
        at_least(2.0, "ResNet-50 fp32 / T1", ratio("resnet50-fp32", "resnet50", STOCK_TUNED)),
        at_least(0.95, "served / P: ResNet-50 int8", of_p("resnet50", "resnet50")),
        at_least(0.88, "served / P: MobileNetV3-L int8", of_p("mobilenet", "mobilenet_v3_large")),
        at_least(0.93, "served / P: SSDLite320 int8", of_p("ssdlite", "ssdlite320")),
        at_least(4, "SSDLite320 int8 / stock, tuned", ratio("ssdlite", "ssdlite320", STOCK_TUNED)),
        at_least(1, "ours / the fastest peer with our model and code", fastest_peer("artifact", "resnet50")),
        at_least(5, "ours / the fastest peer's own way", fastest_peer("idiomatic", "idiomatic")),
        at_most(1.15, "p50 at one connection / P at batch 1", results.unloaded_over_p),
        at_most(4.3, "p99 at 70 % Poisson load / unloaded p50", results.loaded_over_unloaded),
        at_most(0.4, "CPU time of a request outside the engine / T0's", results.overhead),
        at_most(0.5, "memory of a worker / a stock worker's", results.worker_memory),
        at_most(0.7, "start until the first right answer / stock's", results.start),
        at_most(0.35, "12-megapixel photograph, p50 / stock's", results.photos),
        at_least(0.95, "what the tuner finds / the best of all settings", results.found_of_best),
    ]


def _try(measure: Callable[[], Spread]) -> Spread | None:
    try:
        return measure()
    except MissingResultsError:
        return None
