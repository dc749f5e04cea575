"""What a load test measured: records of requests -> rates, latencies, stages, cost."""

import statistics
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from mar_tools.load_testing.processes import Usage
from mar_tools.load_testing.targets import Request

PERCENTILES = (50, 90, 95, 99)
LATENCIES = (*(f"p{percent}" for percent in PERCENTILES), "max", "mean")


@dataclass(frozen=True)
class Record:
    """One request that was sent. Times in seconds of one clock; `started` is when it was to be sent.

    request: its number among the requests of the test. status: 0 where the connection broke or no answer came.
    lag_s: how much later than `started` the client came to send it.
    """

    request: int
    started: float
    finished: float
    status: int
    body: bytes = b""
    batch_size: str = ""
    server_timing: str = ""
    lag_s: float = 0.0


@dataclass(frozen=True)
class Window:
    """The time that counts, in seconds of the records' clock."""

    start: float
    end: float

    @property
    def seconds(self) -> float:
        return self.end - self.start


@dataclass(frozen=True)
class Measurement:
    """One load on one target. Only right answers count for `requests_per_s`, latencies and costs.

    failed: other answers than 200, and none. wrong: of status 200, but not the expected answer.
    latency_ms: p50, p90, p95, p99, max and mean. batch_size: mean over the batches, None where answers do not tell.
    same_classes: of the right answers, the share that names the classes of the expected one and no others.
    stages_ms: of the Server-Timing header, what a request spent in each stage together with its batch (means).
    cpu_ms_per_request, peaks in MB: of the server's processes; None where they are not known. Of that CPU time,
    root_cpu_ms_per_request is the frontend's; client_cpu_ms_per_request is beside it. page_faults_per_request and
    preemptions_per_request: of the server's processes too.
    client_lag_ms: p99 of how late the client sent (open loops): latencies hold it, a good client has next to none.
    """

    requests: int
    failed: int
    wrong: int
    seconds: float
    requests_per_s: float
    latency_ms: Mapping[str, float]
    batch_size: float | None = None
    stages_ms: Mapping[str, float] = field(default_factory=dict)
    cpu_ms_per_request: float | None = None
    peak_rss_mb: float | None = None
    peak_process_mb: float | None = None
    peak_pss_mb: float | None = None
    client_lag_ms: float = 0.0
    root_cpu_ms_per_request: float | None = None
    client_cpu_ms_per_request: float | None = None
    page_faults_per_request: float | None = None
    preemptions_per_request: float | None = None
    same_classes: float | None = None


def measure_records(
    records: Sequence[Record],
    requests: Sequence[Request],
    window: Window,
    usage: Usage,
    answered_in_window: int | None = None,
) -> Measurement:
    """Summarise records. answered_in_window: the answers that `usage` was spent on, where not all of them."""
    answered = [record for record in records if record.status == 200]
    right = select_right(answered, requests)
    served = len(answered) if answered_in_window is None else answered_in_window

    def share(total: float | None, factor: float = 1.0) -> float | None:
        return None if total is None or not served else round(total * factor / served, 3)

    return Measurement(
        requests=len(records),
        failed=len(records) - len(answered),
        wrong=len(answered) - len(right),
        seconds=round(window.seconds, 3),
        requests_per_s=round(len(right) / window.seconds, 2),
        latency_ms=describe_latencies([record.finished - record.started for record in right]),
        same_classes=share_of_same_classes(right, requests),
        batch_size=mean_batch_size(right),
        stages_ms=mean_stages([record.server_timing for record in right if record.server_timing]),
        cpu_ms_per_request=share(usage.cpu_s, 1000),
        root_cpu_ms_per_request=share(usage.root_cpu_s, 1000),
        client_cpu_ms_per_request=share(usage.client_cpu_s, 1000),
        page_faults_per_request=share(usage.page_faults),
        preemptions_per_request=share(usage.preemptions),
        peak_rss_mb=usage.peak_rss_mb,
        peak_process_mb=usage.peak_process_mb,
        peak_pss_mb=usage.peak_pss_mb,
        client_lag_ms=describe_latencies([record.lag_s for record in records]).get("p99", 0.0),
    )


def select_right(answered: Sequence[Record], requests: Sequence[Request]) -> list[Record]:
    """Select the records with the right answer. The same answer to the same request is compared once."""
    verdicts: dict[tuple[int, bytes], bool] = {}
    for record in answered:
        key = (record.request, record.body)
        if key not in verdicts:
            verdicts[key] = requests[record.request].is_right(record.body)
    return [record for record in answered if verdicts[record.request, record.body]]


def share_of_same_classes(right: Sequence[Record], requests: Sequence[Request]) -> float | None:
    known = [record for record in right if requests[record.request].expected is not None]
    pairs = Counter((record.request, record.body) for record in known)
    same = sum(count for (number, body), count in pairs.items() if requests[number].has_same_classes(body))
    return round(same / len(known), 4) if known else None


def describe_latencies(seconds: Sequence[float]) -> dict[str, float]:
    """Return percentiles, maximum and mean in ms; empty without any."""
    if not seconds:
        return {}
    milliseconds = np.asarray(seconds) * 1000
    values = [*np.percentile(milliseconds, PERCENTILES), milliseconds.max(), milliseconds.mean()]
    return {name: round(float(value), 3) for name, value in zip(LATENCIES, values, strict=True)}


def mean_batch_size(records: Sequence[Record]) -> float | None:
    """Return the mean over batches: each request of a batch of b stands for the b-th part of it."""
    sizes = [int(record.batch_size) for record in records if record.batch_size.isdigit() and int(record.batch_size)]
    return round(len(sizes) / sum(1 / size for size in sizes), 2) if sizes else None


def mean_stages(headers: Sequence[str]) -> dict[str, float]:
    """Return means over `Server-Timing` headers like `decode;dur=1.52, inference;dur=8.1`, in ms."""
    sums: dict[str, float] = {}
    for header in headers:
        for stage, milliseconds in parse_server_timing(header).items():
            sums[stage] = sums.get(stage, 0.0) + milliseconds
    return {stage: round(total / len(headers), 3) for stage, total in sums.items()}


def parse_server_timing(header: str) -> dict[str, float]:
    """Parse it; metrics without a duration are left out."""
    stages = {}
    for metric in header.split(","):
        name, *parameters = (part.strip() for part in metric.split(";"))
        for parameter in parameters:
            key, _, value = parameter.partition("=")
            if key.strip().lower() == "dur":
                stages[name] = float(value.strip().strip('"'))
    return stages


def take_medians(measurements: Sequence[Measurement]) -> Measurement:
    """Summarise several rounds: counts and seconds are summed, peaks the highest, the rest are medians."""
    reduce: dict[str, Callable[[list[Any]], Any]] = {
        **dict.fromkeys(("requests", "failed", "wrong", "seconds"), sum),
        **dict.fromkeys(("peak_rss_mb", "peak_process_mb", "peak_pss_mb", "client_lag_ms"), max),
        **dict.fromkeys(("latency_ms", "stages_ms"), _take_medians_of_values),
    }
    combined: dict[str, Any] = {}
    for name in (entry.name for entry in fields(Measurement)):
        values = [value for value in (getattr(entry, name) for entry in measurements) if value is not None]
        combined[name] = reduce.get(name, statistics.median)(values) if values else None
    return Measurement(**combined)


def _take_medians_of_values(mappings: Sequence[Mapping[str, float]]) -> dict[str, float]:
    names = dict.fromkeys(name for mapping in mappings for name in mapping)
    return {name: statistics.median(mapping[name] for mapping in mappings if name in mapping) for name in names}
