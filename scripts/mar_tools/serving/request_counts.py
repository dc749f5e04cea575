"""What TorchServe counts: predictions that were asked for, by version, and answers that failed."""

from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

FAILED = ("Requests4XX", "Requests5XX")
REQUESTS = "ts_inference_requests"
CHANCE = 3  # fewer failures than these say nothing


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
    """Read the text format of Prometheus. None where it has no counts: TorchServe makes each at its first use."""
    requests: dict[tuple[str, str], float] = {}
    failed = 0.0
    for sample in (sample for family in text_string_to_metric_families(metrics) for sample in family.samples):
        name = sample.name.removesuffix("_total")  # which the parser adds to every counter
        if name in FAILED:
            failed += sample.value
        elif name == REQUESTS:
            requests[sample.labels["model_name"], sample.labels["model_version"]] = sample.value
    return Counts(requests, failed) if metrics else None


def find_too_many_failures(before: Counts, during: Counts, max_failed_share: float) -> str | None:
    """Say what speaks against a version: a share of failed answers so much above what was usual before."""
    usual = before.failed_share
    if during.failed < CHANCE or during.failed_share <= usual + max_failed_share:
        return None
    return (
        f"{during.failed:.0f} answers to {sum(during.requests.values()):.0f} requests failed since it gets them "
        f"({during.failed_share:.1%}; before {usual:.1%})"
    )
