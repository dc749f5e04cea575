"""What runs out unless somebody acts: tokens, certificates, disks."""

from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from shutil import disk_usage

import orjson
from cryptography import x509
from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily

KINDS = ("management", "inference")


def show_tokens(key_file: Path | None) -> list[Metric]:
    """Return when each of TorchServe's tokens ends; nothing of a server that asks for none, or runs no more."""
    ends = GaugeMetricFamily("vision_token_end_time_seconds", "When a token ends, since 1970.", labels=["token"])
    if key_file is not None:
        with suppress(FileNotFoundError):
            for kind, token in orjson.loads(key_file.read_bytes()).items():
                if kind in KINDS and "expiration time" in token:
                    ends.add_metric([kind], datetime.fromisoformat(_to_iso(token["expiration time"])).timestamp())
    return [ends]


def _to_iso(text: str) -> str:
    """Return Java's time with as many digits as Python 3.10 reads."""
    whole, _, rest = text.rstrip("Z").partition(".")
    return f"{whole}.{rest[:6]:0<6}+00:00" if rest else f"{whole}+00:00"


def show_certificate(certificate: Path | None) -> list[Metric]:
    """Return when the first certificate of a file ends."""
    ends = GaugeMetricFamily(
        "vision_front_certificate_end_time_seconds", "When the front's certificate ends, since 1970."
    )
    if certificate is not None:
        found = x509.load_pem_x509_certificate(certificate.read_bytes())
        ends.add_metric([], found.not_valid_after_utc.timestamp())
    return [ends]


def show_disks(places: Iterable[tuple[str, Path]]) -> list[Metric]:
    """Return what is free of the disk of each place that is there."""
    free = GaugeMetricFamily("vision_disk_free_bytes", "Free space of the disk that holds a place.", labels=["place"])
    size = GaugeMetricFamily("vision_disk_size_bytes", "Size of the disk that holds a place.", labels=["place"])
    for name, folder in places:
        with suppress(OSError):
            usage = disk_usage(folder)
            free.add_metric([name], usage.free)
            size.add_metric([name], usage.total)
    return [free, size]
