"""Answers of the front, counted from its log: 401, 413 and 429 never reach a worker.

The counts and how far the log is read stand in one file, so a new exporter goes on where the one before it ended.
"""

import math
import os
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from io import BufferedReader
from pathlib import Path
from typing import Any

import orjson
from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily

from vision_serving.worker.metrics import BOUND_NAMES, SECONDS

STATE = "front.json"
MOST_BYTES = 64 << 20  # of the log in one reading
MOST_CLIENTS = 1000
NOBODY = "none"  # the label of requests without a valid key
STATUSES = ("200", "400", "401", "413", "429", "500", "502", "503", "504", "507")


class FrontLog:
    """log: the front's access.log. folder: where the state is kept. Lines from before the first reading stay out."""

    def __init__(self, log: Path, folder: Path) -> None:
        self._log, self._state = log, folder / STATE
        self._file: BufferedReader | None = None
        self._restore()

    def read(self) -> None:
        """Count what was written since the last reading, in a rotated log too."""
        while True:
            self._open()
            if self._file is None:
                break
            ended = self._count_lines(self._file)
            if not ended or not self._is_rotated(self._file):
                break
            self._file.close()
            self._file = None
        self._save()

    def _open(self) -> None:
        if self._file is None:
            with suppress(FileNotFoundError):
                self._file = self._log.open("rb")

    def _is_rotated(self, file: BufferedReader) -> bool:
        """Return whether the log is another file by now. A log that became shorter is read from its beginning."""
        try:
            found = self._log.stat()
        except FileNotFoundError:  # renamed, and nginx still writes there
            return False
        held = os.fstat(file.fileno())
        if (found.st_dev, found.st_ino) == (held.st_dev, held.st_ino):
            if held.st_size < file.tell():
                file.seek(0)
            return False
        return True

    def _count_lines(self, file: BufferedReader) -> bool:
        """Count whole lines, at most MOST_BYTES. Return whether that was all."""
        begin = file.tell()
        content = file.read(MOST_BYTES)
        whole = content.rfind(b"\n") + 1
        file.seek(begin + whole)
        for line in content[:whole].splitlines():
            with suppress(orjson.JSONDecodeError, KeyError, TypeError, ValueError):  # a line that a full disk has cut
                self._count(orjson.loads(line))
        return len(content) < MOST_BYTES

    def _count(self, line: Mapping[str, Any]) -> None:
        client, status, seconds = str(line["client"]) or NOBODY, int(line["status"]), float(line["seconds"])
        received, sent, tries = int(line["bytes_in"]), int(line["bytes_out"]), str(line["tries"])
        if client not in self.bytes_in and len(self.bytes_in) >= MOST_CLIENTS:
            client = "other"
        self.answers[client, str(status)] += 1
        self.bytes_in[client] += received
        self.bytes_out[client] += sent
        if tries:  # TorchServe was asked
            position = bisect_left(SECONDS, seconds)
            self.buckets[SECONDS[position] if position < len(SECONDS) else math.inf] += 1
            self.seconds += seconds
            self.second_tries += " : " in tries or ", " in tries

    def _restore(self) -> None:
        self._open()
        try:
            self._take_over(orjson.loads(self._state.read_bytes()))
        except (FileNotFoundError, ValueError, TypeError, KeyError, AttributeError):  # none, or none that can be read
            self._begin_at_zero()
            if self._file is not None:
                self._file.seek(0, os.SEEK_END)

    def _begin_at_zero(self) -> None:
        self.answers: Counter[tuple[str, str]] = Counter()
        self.bytes_in: Counter[str] = Counter()
        self.bytes_out: Counter[str] = Counter()
        self.buckets: Counter[float] = Counter()
        self.seconds = 0.0
        self.second_tries = 0

    def _take_over(self, saved: Mapping[str, Any]) -> None:
        """Go on where another exporter ended. Raises ValueError, TypeError, KeyError or AttributeError for nonsense."""
        self.answers = Counter({(str(client), str(status)): int(count) for client, status, count in saved["answers"]})
        self.bytes_in = Counter({client: int(count) for client, count in saved["bytes_in"].items()})
        self.bytes_out = Counter({client: int(count) for client, count in saved["bytes_out"].items()})
        self.buckets = Counter({math.inf if bound is None else bound: int(count) for bound, count in saved["buckets"]})
        self.seconds, self.second_tries = float(saved["seconds"]), int(saved["second_tries"])
        if self._file is not None and os.fstat(self._file.fileno()).st_ino == saved["inode"]:
            self._file.seek(int(saved["position"]))

    def _save(self) -> None:
        place = (0, 0) if self._file is None else (os.fstat(self._file.fileno()).st_ino, self._file.tell())
        document = {
            "answers": [(*labels, count) for labels, count in self.answers.items()],
            "bytes_in": self.bytes_in,
            "bytes_out": self.bytes_out,
            "buckets": [(None if bound == math.inf else bound, count) for bound, count in self.buckets.items()],
            "seconds": self.seconds,
            "second_tries": self.second_tries,
            "inode": place[0],
            "position": place[1],
        }
        written = self._state.with_suffix(".new")
        with suppress(OSError):  # a full disk: the state before says how far the log was read for it
            written.write_bytes(orjson.dumps(document))
            os.replace(written, self._state)

    def show(self, clients: Iterable[str]) -> list[Metric]:
        """Return the metrics. Counts of clients that have a key begin at 0: who begins at 1 never rose."""
        answers = CounterMetricFamily(
            "vision_front_requests", "Answers of the front, by client and status.", labels=("client", "status")
        )
        known = {(client, status): 0 for client in (*clients, NOBODY) for status in STATUSES}
        for labels, count in sorted((known | self.answers).items()):
            answers.add_metric(labels, count)
        received = CounterMetricFamily(
            "vision_front_received_bytes", "Bytes of requests, by client.", labels=["client"]
        )
        sent = CounterMetricFamily("vision_front_sent_bytes", "Bytes of answers, by client.", labels=["client"])
        for family, counts in ((received, self.bytes_in), (sent, self.bytes_out)):
            for client, count in sorted(counts.items()):
                family.add_metric([client], count)
        again = CounterMetricFamily("vision_front_second_tries", "Requests of which TorchServe was asked twice.")
        again.add_metric([], self.second_tries)
        times = HistogramMetricFamily(
            "vision_front_request_duration_seconds", "Seconds of requests of which TorchServe was asked."
        )
        total, buckets = 0, []
        for bound in (*SECONDS, math.inf):
            total += self.buckets[bound]
            buckets.append((BOUND_NAMES[bound], total))
        times.add_metric([], buckets, self.seconds)
        return [answers, received, sent, again, times]
