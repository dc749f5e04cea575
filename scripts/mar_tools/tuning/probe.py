"""The highest rate of Poisson arrivals at which a server keeps a latency, and what its users wait then."""

from collections.abc import Sequence
from dataclasses import dataclass

from mar_tools.load_testing.closed_loop import run_closed_loop
from mar_tools.load_testing.measurement import Measurement
from mar_tools.load_testing.open_loop import run_open_loop
from mar_tools.load_testing.targets import Request, Target
from mar_tools.tuning.space import Settings
from vision_serving.errors import VisionServingError

SHARES = tuple(number / 20 for number in range(19, 1, -1))  # of what a closed loop reaches: 0.95, 0.9, ... 0.1
MIN_CONNECTIONS, MAX_CONNECTIONS = 4, 512
WARM_UP_S = 2.0


class WrongAnswersError(VisionServingError):
    """A server that answers wrongly is not worth tuning."""


@dataclass(frozen=True)
class Goal:
    """The latency to keep, and for how long each load runs."""

    p99_ms: float
    trial_s: float


@dataclass(frozen=True)
class KeptRate:
    """rate: requests/s, 0 where no rate is slow enough."""

    rate: float
    measured: Measurement


def measure_capacity(target: Target, requests: Sequence[Request], settings: Settings, duration_s: float) -> float:
    """Measure requests/s with all batches full."""
    connections = min(max(2 * settings.workers * settings.batch_size, MIN_CONNECTIONS), MAX_CONNECTIONS)
    measured = run_closed_loop(target, requests, connections, duration_s, WARM_UP_S)
    refuse_wrong(measured, settings)
    return measured.requests_per_s


def find_rate(
    target: Target, requests: Sequence[Request], settings: Settings, goal: Goal, capacity: float, to_beat: float
) -> KeptRate | None:
    """Find by halves among SHARES of the capacity; None where none of them that beats `to_beat` keeps the latency."""
    rates = [round(share * capacity, 2) for share in SHARES]
    low, high = 0, sum(rate > to_beat for rate in rates)  # the first that keeps it is among rates[low:high + 1]
    can_be_worst = high == len(rates)
    best, measured = None, None
    while low < high:
        number = (low + high) // 2
        measured = run_open_loop(target, requests, rates[number], goal.trial_s, seed=number)
        refuse_wrong(measured, settings)
        if keeps(measured, goal.p99_ms):
            best, high = KeptRate(rates[number], measured), number
        else:
            low = number + 1
    if best is None and can_be_worst and measured is not None:
        return KeptRate(0.0, measured)
    return best


def keeps(measured: Measurement, p99_ms: float) -> bool:
    """Return whether all were answered, and 99 of 100 in time."""
    return not measured.failed and measured.latency_ms.get("p99", float("inf")) <= p99_ms


def refuse_wrong(measured: Measurement, settings: Settings) -> None:
    if measured.wrong:
        raise WrongAnswersError(f"{measured.wrong} of {measured.requests} answers were wrong with {settings}")
