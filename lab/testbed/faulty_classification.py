"""Entry file of an archive that fails on purpose: a picture of one of these colours, of the model's own size, does it.

Everything else is answered as by the classifier that it extends.
"""

import ctypes
import itertools
import os
import threading
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from image_classification import ImageClassificationHandler
from vision_serving.config import ImageLimits
from vision_serving.cores import ThreadPlan
from vision_serving.errors import BackendError
from vision_serving.pictures.resizing import ImageBatch

CANNOT_LOAD = "cannot_load.txt"  # an archive with such a file fails to load, for the reason that stands in it
ALLOCATED_BYTES = 8_000_000_000
SLEEP_S = 0.2


def wait_for_a_lock_that_is_held() -> None:
    lock = threading.Lock()
    lock.acquire()
    lock.acquire()


def loop_in_c_forever() -> None:
    """Loop without giving the interpreter's lock back, so that no other thread of Python runs."""
    sum(itertools.repeat(0))


def end_at_once() -> None:
    os._exit(3)


def read_address_zero() -> None:
    ctypes.string_at(0)


def allocate_too_much() -> None:
    np.ones(ALLOCATED_BYTES, dtype=np.uint8)


def sleep_a_while() -> None:
    time.sleep(SLEEP_S)


def raise_an_error() -> None:
    raise ValueError("made to fail")


FAULTS = {
    (255, 0, 10): wait_for_a_lock_that_is_held,
    (255, 0, 20): loop_in_c_forever,
    (255, 0, 30): end_at_once,
    (255, 0, 40): read_address_zero,
    (255, 0, 50): allocate_too_much,
    (255, 0, 60): sleep_a_while,
    (255, 0, 70): raise_an_error,
}


class FaultyClassificationHandler(ImageClassificationHandler):
    """The classifier, until it sees one of the colours in FAULTS."""

    def load(
        self,
        model_dir: Path,
        device: torch.device,
        threads: ThreadPlan | None = None,
        limits: ImageLimits | None = None,
    ) -> None:
        reason = model_dir / CANNOT_LOAD
        if reason.is_file():
            raise BackendError(reason.read_text(encoding="utf-8"))
        super().load(model_dir, device, threads, limits)

    def inference(self, batch: ImageBatch) -> dict[str, Tensor]:
        for pixels in batch.pixels.flatten(1, 2):
            fault = FAULTS.get(tuple(pixels[0].tolist())) if bool((pixels == pixels[0]).all()) else None
            if fault is not None:
                fault()
        return super().inference(batch)
