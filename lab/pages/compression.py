"""The values of docs/evidence/compression.md."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vision_serving.validation import read_json

NETWORKS = {"digits": "MobileNetV3-Small", "letters": "ResNet-18"}
WANTED = 2.0  # times the original's int8


def read_values(path: Path) -> dict[str, Any]:
    document = read_json(path)
    tasks = [read_task(name, values) for name, values in document["tasks"].items()]
    return {"tasks": tasks, "machine": document["machine"]}


def read_task(name: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the ladder of a task, the fastest first."""
    ladder = values["ladder"]
    timed = [point for point in ladder["points"] if point.get("times_int8")]
    batch = max((int(size) for point in timed for size in point["images_per_s"]), default=1)
    timed.sort(key=lambda point: -point["times_int8"])
    chosen = next((point for point in timed if point["is_chosen"]), None)
    return {
        "name": name,
        "network": NETWORKS[name],
        "trained": values["trained"],
        "baseline": ladder["baseline_accuracy"],
        "budget_min": ladder["budget_min"],
        "rows": [row_cells(point, batch) for point in timed],
        "batch": batch,
        "chosen": chosen,
        "is_twice": chosen is not None and chosen["times_int8"] >= WANTED,
        "failed": [point for point in ladder["points"] if not point.get("times_int8")],
        "hopeless": ladder["hopeless"],
        "untried": ladder["untried"],
    }


def row_cells(point: Mapping[str, Any], batch: int) -> list[str]:
    name = f"**{point['name']}**" if point["is_chosen"] else point["name"]
    told = "chosen" if point["is_chosen"] else "" if point["is_within"] else "loses too much"
    figures = [f"{point['accuracy']:.3f}", f"{point['images_per_s'][str(batch)]:,.0f}", f"{point['times_int8']:.2f}"]
    return [name, point["candidate"], *figures, f"{point['size_mb']:.1f}", told]
