"""A worker keeps a few of its predictions, where `config.properties` asks for it, and never at the cost of an answer.

A request is chosen by chance and put into a short queue; a thread writes what is in it. A queue that is full, as where
a disk is slow, lets samples go. What cannot be written is told once, and tried again.
"""

import logging
import queue
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import SystemRandom
from typing import Any

import orjson

from vision_serving.answers.responses import ModelIdentity, Response
from vision_serving.config import HandlerConfig, ImageLimits
from vision_serving.errors import ConfigError, DrainingError
from vision_serving.requests.payload import Payload
from vision_serving.results.outcome import Outcome
from vision_serving.worker.sample_files import SampleFiles
from vision_serving.worker.sample_records import HARMLESS, Taken, held_bytes, make_record
from vision_serving.worker.sample_settings import SIZE_KEY, SampleSettings, configured_samples

logger = logging.getLogger(__name__)

MOST_WAITING = 64  # requests
MOST_WAITING_BYTES = 32 << 20  # of their pictures
PAUSE_S = 60.0  # after a failure
TIDY_S = 3600.0  # between two looks for what is too old
NO_SAMPLES, NO_MODEL, NO_LIMITS = SampleSettings(), ModelIdentity(), ImageLimits()


class Sampler:
    """One worker's.

    harmless: options that leave scores and classes as they are. golden: the archive's own picture, which probes send
    again and again and no client means.
    """

    def __init__(
        self,
        settings: SampleSettings = NO_SAMPLES,
        model: ModelIdentity = NO_MODEL,
        limits: ImageLimits = NO_LIMITS,
        harmless: frozenset[str] = HARMLESS,
        golden: bytes | None = None,
    ) -> None:
        self._settings, self._model, self._golden = settings, model, golden
        self._limits, self._harmless = limits, harmless
        self._files = SampleFiles(settings.folder, settings.bounds)
        self._draw = SystemRandom().random
        self._waiting: queue.Queue[Taken] = queue.Queue(MOST_WAITING)
        self._given = self._done = 0  # bytes, each written by one thread alone
        self._rests_until, self._tidied_s = 0.0, time.monotonic()
        self._fails = False
        if settings.share:
            threading.Thread(target=self._write_on, name="samples", daemon=True).start()

    @classmethod
    def of(cls, model: ModelIdentity, model_dir: Path, config: HandlerConfig) -> "Sampler":
        """Return the one that the server's settings ask for. Settings that cannot be read are a line in the log."""
        try:
            settings = configured_samples(model.name, model.version)
        except ConfigError as error:
            logger.error("no predictions are sampled: %s", error)
            settings = SampleSettings()
        golden = model_dir / "golden.png"
        picture = golden.read_bytes() if settings.share and golden.is_file() else None
        harmless = HARMLESS - ({"top_k"} if config.activation == "sigmoid" else set())  # which leaves labels out there
        return cls(settings, model, config.limits, harmless, picture)

    def sample_batch(
        self,
        payloads: Sequence[Payload],
        headers: Sequence[Mapping[str, Any]],
        outcomes: Sequence[Outcome],
        responses: Sequence[Response],
    ) -> None:
        """Choose from the requests of a batch that are answered. Never raises, and never waits."""
        share = self._settings.share
        if not share or (self._rests_until and time.monotonic() < self._rests_until):
            return
        for payload, head, outcome, response in zip(payloads, headers, outcomes, responses):
            if self._draw() < share and response.status != DrainingError.status:
                self._take(Taken(payload, head, outcome, response.status))

    def _take(self, taken: Taken) -> None:
        size = held_bytes(taken.payload)
        if self._given - self._done + size > MOST_WAITING_BYTES or taken.payload.images == (self._golden,):
            return
        try:
            self._waiting.put_nowait(taken)
        except queue.Full:
            return
        self._given += size

    def _write_on(self) -> None:
        """Write what is chosen, for as long as the process lives."""
        while True:
            taken = self._next()
            try:
                if time.monotonic() - self._tidied_s >= TIDY_S:
                    self._tidied_s = time.monotonic()
                    self._files.tidy()
                if taken is not None:
                    self._write(taken)
                    self._note_success()
            except Exception as error:  # of any kind: a sample is worth no worker
                self._note_failure(error)
            finally:
                self._done += held_bytes(taken.payload) if taken else 0

    def _next(self) -> Taken | None:
        try:
            return self._waiting.get(timeout=TIDY_S)
        except queue.Empty:
            return None

    def _write(self, taken: Taken) -> None:
        record, pictures = make_record(taken, self._model, self._limits, self._harmless, self._settings.pictures)
        if not self._files.fits(pictures):
            pictures = []
            for image in record["images"]:
                image.pop("picture", None)
        self._files.append(orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE), pictures)

    def _note_success(self) -> None:
        if self._fails:
            logger.warning("predictions are sampled again in %s", self._settings.folder)
        self._fails, self._rests_until = False, 0.0

    def _note_failure(self, error: Exception) -> None:
        self._rests_until = time.monotonic() + PAUSE_S
        if not self._fails:
            logger.error(
                "no predictions are sampled in %s: %s: %s; free some space there, let this user write, or lower %s in "
                "config.properties; predictions go on, and sampling is tried again each minute",
                self._settings.folder, type(error).__name__, error, SIZE_KEY,
            )  # fmt: skip
        self._fails = True
