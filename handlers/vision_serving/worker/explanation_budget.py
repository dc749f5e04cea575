"""The share of a worker's time that explanations may take: predictions wait in the same queue behind them."""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager

from vision_serving.errors import ExplanationsBusyError

BURST_S = 0.5  # what explanations may take beyond their share: short ones are asked for one after the other
BESIDE_S = 0.05  # what those of a batch may take that has predictions too: TorchServe answers a batch as a whole
TAKEN = "explanations have taken their share of this worker's time (max_explanation_share of the archive)"
BESIDE = f"predictions came in the same batch, beside which an explanation may take {BESIDE_S:g} s"


class ExplanationBudget:
    """Seconds for explanations. They come back with time, at `share` of it, up to BURST_S; with a share of 1, at once.

    An explanation may take more than there is. The next ones are then refused until it has come back. So whatever is
    queued, a prediction waits no longer than for one explanation and BURST_S / (1 - share), and never for one that came
    in its own batch.
    """

    def __init__(self, share: float) -> None:
        self._share = share
        self._seconds = BURST_S
        self._counted_at = time.monotonic()

    @contextmanager
    def spend(self) -> Iterator[ExplanationsBusyError | None]:
        """Count what is done here as explaining. Yield why it must not be done, None where it may."""
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

    def find_deadline(self, beside_predictions: bool) -> float:
        """Return when the explanations of a batch that begin now have to end, in seconds of `time.monotonic`."""
        return time.monotonic() + BESIDE_S if beside_predictions and self._share < 1 else math.inf
