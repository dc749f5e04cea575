"""How an archive is predicted on this machine, chosen by a short trial whose results are kept."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mar_tools.predicting.chunks import SHARD_S, ChunkSource, Tell
from mar_tools.predicting.local_engine import Crew, LocalJob, Plan, open_crew
from mar_tools.predicting.rows import Answer
from mar_tools.predicting.shards import ResultFolder
from mar_tools.terminal import print_line
from vision_serving.cores import usable_cores

BATCH_SIZES = (1, 8, 32)
FEW = 200  # pictures, which are predicted before a second crew has loaded the model
TRIAL_S = 0.5  # of each batch size
LAST_SHARD_S = 0.25  # or less: shards are smaller towards the end
MOST_PICTURES = 20_000  # of a shard, which is in memory until it is written
FIRST = 8  # pictures that tell how fast the model is at all


@dataclass
class LocalEngine:
    """Predicts in processes of this machine. processes, batch_size: None for a trial.

    check: of the answer to a gray picture; raises where the run could give nothing. total: of pictures, None before it
    is known.
    """

    job: LocalJob
    logs: Path
    on_gpu: bool
    processes: int | None
    batch_size: int | None
    check: Callable[[Answer], None]
    total: Callable[[], int | None]

    def predict(self, source: ChunkSource, result: ResultFolder, tell: Tell) -> None:
        """Write shards until the source is empty. Raises what an input, the disk or the model raise."""
        best_rate, best_plan, best_batch = 0.0, None, 0
        plans = self._list_plans()
        for plan in plans:
            with open_crew(self.job, plan, self.logs, result, tell) as crew:
                self.check(crew.workers[0].probe)
                batch_size, rate = self._choose_batch(crew, source)
                if source.is_empty or (plan == plans[-1] and rate >= best_rate):
                    self._work(crew, source, plan, batch_size, rate)
                    return
            best_rate, best_plan, best_batch = rate, plan, batch_size
        assert best_plan is not None
        with open_crew(self.job, best_plan, self.logs, result, tell) as crew:
            self._work(crew, source, best_plan, best_batch, best_rate)

    def _list_plans(self) -> list[Plan]:
        """List what is tried: one process with all cores, and one for each core."""
        cores, total = usable_cores(), self.total()
        if self.processes is not None:
            return [Plan(self.processes, max(1, cores // self.processes))]
        if self.on_gpu or cores == 1 or (total is not None and total <= FEW):
            return [Plan(1, cores)]
        return [Plan(1, cores), Plan(cores, 1)]

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
