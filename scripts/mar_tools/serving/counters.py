"""What TorchServe counts: predictions that were asked for, by version, and answers by the class of their status."""

import re
from dataclasses import dataclass

SAMPLE = re.compile(r"^(\w+)\{(.*)\} ([0-9.eE+-]+)$", re.MULTILINE)
LABEL = re.compile(r'(\w+)="([^"]*)"')
FAILED = ("Requests4XX", "Requests5XX")
REQUESTS = "ts_inference_requests_total"


@dataclass(frozen=True)
class Counts:
    """requests: by model, and version where they named it (else `default`). failed: answers with 4xx or 5xx.

    TorchServe does not tell which model's answers failed, and counts those of its management API too.
    """

    requests: dict[tuple[str, str], float]
    failed: float

    def since(self, earlier: "Counts") -> "Counts":
        requests = {key: value - earlier.requests.get(key, 0.0) for key, value in self.requests.items()}
        return Counts(requests, self.failed - earlier.failed)

    @property
    def failed_share(self) -> float:
        return self.failed / max(1.0, sum(self.requests.values()))


def read_counts(metrics: str) -> Counts | None:
    """Read Prometheus' text format; None where it has no such counts: TorchServe makes each at its first use."""
    requests: dict[tuple[str, str], float] = {}
    failed = 0.0
    for name, labels, value in SAMPLE.findall(metrics):
        if name in FAILED:
            failed += float(value)
        elif name == REQUESTS:
            label = dict(LABEL.findall(labels))
            requests[label["model_name"], label["model_version"]] = float(value)
    return Counts(requests, failed) if metrics else None
