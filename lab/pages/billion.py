"""The values of docs/evidence/billion.md: what a billion pictures take, computed from what few of them took."""

import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.pages.performance_results import PerformanceResults
from mar_tools.predicting.chunks import SHARD_S

MANY, MILLION = 1_000_000_000, 1_000_000
CORES = 1000
HOUR_S = 3600.0
EXAMPLE_PRICE = 0.10  # a core-hour; the reader puts in another
GPU_PRICES = (10, 50)  # of a GPU-hour, in core-hours
RUN = 10_000_000  # pictures of one run
NAME_BYTES = 120  # of an address of 60 letters, in a list of Python
PREFIX_GETS_PER_S = 5500  # as Amazon documents it for S3
MODELS = {"resnet50": "resnet50", "mobilenet": "mobilenet_v3_large", "ssdlite": "ssdlite320"}  # results -> their P


@dataclass(frozen=True)
class Work:
    """What a picture costs. core_ms: of one core, all included. source: what was measured."""

    name: str
    core_ms: float
    source: str

    @property
    def images_per_s(self) -> float:
        return 1000 / self.core_ms

    @property
    def core_hours_a_million(self) -> float:
        return self.core_ms / 1000 * MILLION / HOUR_S

    @property
    def hours(self) -> float:
        """Return how long all take with CORES cores."""
        return self.core_hours_a_million * MANY / MILLION / CORES

    @property
    def rows_a_shard(self) -> float:
        return SHARD_S * self.images_per_s

    @property
    def shards_a_run(self) -> float:
        return RUN / self.rows_a_shard

    @property
    def cores_a_prefix(self) -> float:
        return PREFIX_GETS_PER_S / self.images_per_s

    def cores_of_driver(self, dealt_per_s: float) -> float:
        """Return how many cores one driver keeps busy."""
        return dealt_per_s * self.core_ms / 1000


def read_values(folder: Path) -> dict[str, Any]:
    results = PerformanceResults(folder)
    offline, ray, driver = (results.document(name) for name in ("offline", "ray", "driver"))
    local_p = _median(offline, "p_process_a_core_images_per_s") / offline["machine"]["cores"]
    on_ray = _median(ray, "ray_images_per_s") / ray["cores"]
    overhead_ms = 1000 / on_ray - 1000 / local_p
    photographs = results.step("resnet50")
    p = photographs.find("resnet50 (P)", "in_process").median
    assert p.batch_size is not None
    decode_ms = (p.stages_ms["decode"] + p.stages_ms["preprocess"]) / p.batch_size
    sharing = {name: _median(driver, name) for name in driver["rounds"][0]}
    return {
        "works": list_works(results, on_ray, overhead_ms),
        "overhead_ms": overhead_ms,
        "local_of_p": _median(offline, "offline_images_per_s") / _median(offline, "p_process_a_core_images_per_s"),
        "ray_of_local": _median(ray, "ray_images_per_s") / _median(ray, "local_images_per_s"),
        "ends_s": _median(offline, "offline_start_s") + _median(offline, "offline_end_s"),
        "raylets": {number: _median(ray, f"raylets_{number}_images_per_s") for number in (1, 2)},
        "machine": ray["machine"],
        "photo_machine": photographs.document["machine"],
        "photo_bytes": photographs.document["images"]["mean_bytes"],
        "decode_ms": decode_ms,
        "driver": {**sharing, "count": driver["count"]},
        "driver_per_s": 1 / (1 / sharing["counted_per_s"] + 1 / sharing["dealt_per_s"]),
        "name_bytes": NAME_BYTES,
        "price": EXAMPLE_PRICE,
        "gpu_prices": GPU_PRICES,
        "cores": CORES,
        "run": RUN,
        "gets_per_s": PREFIX_GETS_PER_S,
        "shard_s": SHARD_S,
    }


def list_works(results: PerformanceResults, digits_per_core: float, overhead_ms: float) -> list[Work]:
    """Return the digits as Ray predicted them, and models of P's core time with Ray's overhead a picture on top."""
    works = [Work("digits, 28 x 28", 1000 / digits_per_core, "Ray, all measured")]
    for step, model in MODELS.items():
        run = results.step(step)
        p = run.find(f"{model} (P)", "in_process").median
        core_ms = 1000 * run.document["machine"]["cores"] / p.requests_per_s + overhead_ms
        works.append(Work(f"{model}, JPEGs of 640 x 427", core_ms, "P, and Ray's overhead"))
    return works


def _median(document: dict[str, Any], name: str) -> float:
    return float(statistics.median(entry[name] for entry in document["rounds"]))
