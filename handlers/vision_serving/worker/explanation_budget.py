"""The share of a worker's time that explanations may take: predictions wait in the same queue behind them."""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager

from vision_serving.errors import ExplanationsBusyError

BURST_S = 0.5  # what explanations may take beyond their share: short ones are asked for one after the other
TAKEN = "explanations have taken their share of this worker's time (max_explanation_share of the archive)"
BESIDE = "predictions came in the same batch, whose answers would wait for the explanation"


class ExplanationBudget:
    """Seconds for explanations. They come back with time, at `share` of it, up to BURST_S; with a share of 1, at once.

    An explanation may take more than there is. The next ones are then refused until it has come back. So whatever is
    queued, a prediction waits no longer than for one explanation and BURST_S / (1 - share). It never waits for one that
    came in its own batch: TorchServe answers a batch as a whole, so that explanation is refused.
    """

    def __init__(self, share: float) -> None:
        self._share = share
        self._seconds = BURST_S
        self._counted_at = time.monotonic()

    @contextmanager
    def spend(self, beside_predictions: bool = False) -> Iterator[ExplanationsBusyError | None]:
        """Count what is done here as explaining. Yield why it must not be done, None where it may."""
        if beside_predictions and self._share < 1:
            yield ExplanationsBusyError(BESIDE, 1)
            return
        started = time.monotonic()
        self._seconds = min(BURST_S, self._seconds + (started - self._counted_at) * self._share)
        self._counted_at = started
        if self._seconds < 0:
            yield ExplanationsBusyError(TAKEN, max(1, math.ceil(-self._seconds / self._share)))
            return
        try:
            yield None
        finally:
            self._seconds -= time.monotonic() - started
