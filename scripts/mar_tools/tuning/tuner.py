"""One model's tuning from its archive to a decision: the search, and the winner measured beside what there was."""

import hashlib
import statistics
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass

from mar_tools.command_line import Announce
from mar_tools.load_testing.measurement import Measurement
from mar_tools.load_testing.open_loop import run_open_loop
from mar_tools.load_testing.targets import Request, Target
from mar_tools.serving.torchserve_api import ServerError
from mar_tools.tuning.deployment import TunedModel, serve_trial
from mar_tools.tuning.gpu_memory import GpuMemory
from mar_tools.tuning.probe import Goal, find_rate, keeps, measure_capacity, refuse_wrong
from mar_tools.tuning.search import Attempt, Search
from mar_tools.tuning.space import Settings
from vision_serving.validation import StrictModel
from vision_serving.worker.server_settings import read_properties

ROUNDS = 3
ROUND_FACTOR = 2  # longer than the trials of the search: p99 is a matter of few requests
STEP_DOWN = 0.95  # where the winner does not keep the latency for longer
COMPARED = 3  # of the best: a trial is short, and one may have been lucky
LEAST_GAIN = 1.02  # less is noise, and no reason to change what runs


class Side(StrictModel):
    """Settings under one rate: medians over the rounds."""

    settings: Settings
    p50_ms: float
    p99_ms: float
    rounds_p99_ms: tuple[float, ...]
    failed: int


class Decision(StrictModel):
    """Settings that are better: the rate at which they kept the latency, and what those of before did under it.

    former: None where they did not start beside it. former_requests_per_s: the highest rate at which they kept the
    latency in the search, None where there was none.
    """

    requests_per_s: float
    chosen: Side
    former: Side | None
    former_requests_per_s: float | None


@dataclass(frozen=True)
class Tuner:
    """Tries settings, and decides between them. memory: that of the GPUs; None on the CPU."""

    candidate: TunedModel
    requests: Sequence[Request]
    goal: Goal
    memory: GpuMemory | None = None

    def key(self) -> tuple[object, ...]:
        """Return all that the result of a trial depends on, besides its settings and the machine."""
        content = hashlib.sha256(self.candidate.archive.read_bytes()).hexdigest()
        pictures = hashlib.sha256(b"".join(request.body for request in self.requests)).hexdigest()
        values = read_properties(self.candidate.properties)
        others = sorted((key, value) for key, value in values.items() if key != "models")
        return (self.candidate.name, content, others, pictures, self.goal)

    def evaluate(self, settings: Settings, to_beat: float) -> Attempt:
        """Run one trial. What does not start is a finding; wrong answers are an error (WrongAnswersError)."""
        attempt = Attempt(settings=settings, to_beat=to_beat)
        if self.memory is not None and (problem := self.memory.refuse(settings, self.candidate.gpus)):
            return attempt.model_copy(update={"problem": problem})
        try:
            with serve_trial(self.candidate, settings) as target:
                capacity = measure_capacity(target, self.requests, settings, self.goal.trial_s)
                attempt = attempt.model_copy(update={"capacity": capacity})
                probe = find_rate(target, self.requests, settings, self.goal, capacity, to_beat)
        except ServerError as error:
            return attempt.model_copy(update={"problem": str(error)})
        if probe is None:
            return attempt
        latencies = {name: probe.measured.latency_ms.get(name.removesuffix("_ms")) for name in ("p50_ms", "p99_ms")}
        return attempt.model_copy(update={"rate": probe.rate, **latencies})

    def decide(self, search: Search, current: Settings, announce: Announce) -> Decision | None:
        """Return the best settings that stand the comparison with the current ones; None where those do as well."""
        former = search.attempts[current]
        least = LEAST_GAIN * (former.rate or 0.0)
        better = [entry for entry in search.attempts.values() if entry.rate and entry.rate >= least]
        better.sort(key=lambda entry: entry.rate or 0.0, reverse=True)
        for attempt in [entry for entry in better if entry.settings != current][:COMPARED]:
            decision = self._compare(attempt, former, least, announce)
            if decision is not None:
                return decision
        return None

    def _compare(self, attempt: Attempt, former: Attempt, least: float, announce: Announce) -> Decision | None:
        """Compare side by side, in turns, under the highest rate at which `attempt` keeps the latency for longer."""
        with ExitStack() as stack:
            announce(f"starting {attempt.settings} beside the current settings")
            target = stack.enter_context(serve_trial(self.candidate, attempt.settings))
            targets = {attempt.settings: target}
            with suppress(ServerError):  # no memory for both, perhaps; what it did in the search still counts
                targets[former.settings] = stack.enter_context(serve_trial(self.candidate, former.settings))
            for rate in self._rates_kept(target, attempt, least, announce):
                announce(f"comparing at {rate:.4g} requests/s")
                sides = self._measure_in_turns(targets, rate)
                if self._keeps(sides[attempt.settings]):
                    beside = sides.get(former.settings)
                    if beside is not None and self._keeps(beside):
                        return None
                    return Decision(
                        requests_per_s=rate,
                        chosen=sides[attempt.settings],
                        former=beside,
                        former_requests_per_s=former.rate,
                    )
        return None

    def _rates_kept(self, target: Target, attempt: Attempt, least: float, announce: Announce) -> Iterator[float]:
        """Yield rates downwards to `least`, at which the latency is kept for longer than in a trial."""
        rate = attempt.rate or 0.0
        while rate >= least:
            announce(f"{attempt.settings} at {rate:.4g} requests/s")
            found = run_open_loop(target, self.requests, rate, ROUND_FACTOR * self.goal.trial_s, seed=ROUNDS)
            refuse_wrong(found, attempt.settings)
            if keeps(found, self.goal.p99_ms):
                yield rate
            rate = round(rate * STEP_DOWN, 2)

    def _keeps(self, side: Side) -> bool:
        return not side.failed and side.p99_ms <= self.goal.p99_ms

    def _measure_in_turns(self, targets: dict[Settings, Target], rate: float) -> dict[Settings, Side]:
        measured: dict[Settings, list[Measurement]] = {settings: [] for settings in targets}
        for number in range(ROUNDS):
            for settings, target in targets.items():
                duration_s = ROUND_FACTOR * self.goal.trial_s
                found = run_open_loop(target, self.requests, rate, duration_s, seed=number)
                refuse_wrong(found, settings)
                measured[settings].append(found)
        return {settings: _join_rounds(settings, rounds) for settings, rounds in measured.items()}


def _join_rounds(settings: Settings, rounds: Sequence[Measurement]) -> Side:
    """Return the latency; a round without any answer has none, and its requests count as failed."""
    p50, p99 = ([found.latency_ms.get(name, float("inf")) for found in rounds] for name in ("p50", "p99"))
    return Side(
        settings=settings,
        p50_ms=statistics.median(p50),
        p99_ms=statistics.median(p99),
        rounds_p99_ms=tuple(p99),
        failed=sum(found.failed for found in rounds),
    )
