"""How an archive is predicted, chosen by a short trial whose results are kept."""

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from mar_tools.predicting.chunks import SHARD_S, ChunkSource, Tell
from mar_tools.predicting.local_engine import Crew, NewWorker, Plan, open_crew
from mar_tools.predicting.rows import Answer, Origin
from mar_tools.predicting.shards import ResultFolder
from mar_tools.terminal import print_line
from vision_serving.cores import usable_cores

BATCH_SIZES = (1, 8, 32)
FEW = 200  # pictures, which are predicted before a second crew has loaded the model
TRIAL_S = 0.5  # of each batch size
LAST_SHARD_S = 0.25  # or less: shards are smaller towards the end
MOST_PICTURES = 20_000  # of a shard, which is in memory until it is written
FIRST = 8  # pictures that tell how fast the model is at all


def list_plans(processes: int | None, on_gpu: bool, total: int | None) -> list[Plan]:
    """List what is tried on this machine: one process with all cores, and one for each core."""
    cores = usable_cores()
    if processes is not None:
        return [Plan(processes, max(1, cores // processes))]
    if on_gpu or cores == 1 or (total is not None and total <= FEW):
        return [Plan(1, cores)]
    return [Plan(1, cores), Plan(cores, 1)]


@dataclass
class Engine:
    """Predicts in processes, here or on other machines. plans: that are tried. batch_size: None for a trial.

    check: of the answer to a gray picture; raises where the run could give nothing. total: of pictures, None before it
    is known.
    """

    plans: Sequence[Plan]
    new_worker: NewWorker
    origin: Origin
    task: str
    batch_size: int | None
    check: Callable[[Answer], None]
    total: Callable[[], int | None]

    def predict(self, source: ChunkSource, result: ResultFolder, tell: Tell) -> None:
        """Write shards until the source is empty. Raises what an input, the disk or the model raise."""
        best_rate, best_plan, best_batch = 0.0, None, 0
        for plan in self.plans:
            with self._open(plan, result, tell) as crew:
                self.check(crew.workers[0].probe)
                batch_size, rate = self._choose_batch(crew, source)
                if source.is_empty or (plan == self.plans[-1] and rate >= best_rate):
                    self._work(crew, source, plan, batch_size, rate)
                    return
            best_rate, best_plan, best_batch = rate, plan, batch_size
        assert best_plan is not None
        with self._open(best_plan, result, tell) as crew:
            self._work(crew, source, best_plan, best_batch, best_rate)

    def _open(self, plan: Plan, result: ResultFolder, tell: Tell) -> AbstractContextManager[Crew]:
        return open_crew(self.new_worker, plan, self.origin, self.task, result, tell)

    def _choose_batch(self, crew: Crew, source: ChunkSource) -> tuple[int, float]:
        """Return the fastest batch size for these processes, and pictures a second with it."""
        sizes = BATCH_SIZES if self.batch_size is None else (self.batch_size,)
        first = min(FIRST, max(sizes))
        rates = {first: crew.work(source, first, lambda: FIRST, shards=1)}
        each = rates[first] / len(crew.workers)
        for size in sizes:
            if size == 1 or 2 * size <= 4 * TRIAL_S * each:  # a slow model is not kept for long with large batches
                pictures = max(2 * size, math.ceil(TRIAL_S * each))
                rate = crew.work(source, size, lambda count=pictures: count, shards=1)  # type: ignore[misc]
                rates[size] = rate or rates.get(size, 0.0)  # 0 where no picture is left
        best = max((size for size in sizes if size in rates), key=lambda size: rates[size], default=first)
        return (best if self.batch_size is None else self.batch_size), rates[best]

    def _work(self, crew: Crew, source: ChunkSource, plan: Plan, batch_size: int, rate: float) -> None:
        if not source.is_empty:
            print_line(f"processes: {plan.processes}, threads of each: {plan.threads}, images a batch: {batch_size}")
        least = round(LAST_SHARD_S * rate / plan.processes)
        usual = max(batch_size, min(MOST_PICTURES, round(SHARD_S * rate / plan.processes)))

        def count() -> int:
            """Return fewer pictures towards the end, so that all processes end at about the same time."""
            total = self.total()
            left = math.inf if total is None else total - source.passed
            return max(batch_size, least, int(min(usual, left / (2 * plan.processes))))

        crew.work(source, batch_size, count)
