"""The values of docs/evidence/int8_training.md."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vision_serving.validation import read_json

NETWORKS = {"lcnet_050": "LCNet 0.5"}
WAYS = {"float": "further in float, then fitted", "qat": "with the values of int8 (`--qat`)"}


def read_values(path: Path) -> dict[str, Any]:
    document = read_json(path)
    further = document["further"]
    accuracies = {way: [read_row(built["int8"])["accuracy"] for built in further[way].values()] for way in WAYS}
    rows = [
        {"name": f"the network, fitted for {backend}", **read_build(built)}
        for backend, built in document["original"].items()
    ]
    rows += [
        {"name": f"{words}, seed {seed}", **read_build(built)}
        for way, words in WAYS.items()
        for seed, built in further[way].items()
    ]
    fitted = read_row(next(iter(document["original"].values()))["int8"])
    return {
        "document": document,
        "network": NETWORKS[document["network"]],
        "rows": rows,
        "float": rows[0]["float"],
        "fitted": fitted,
        "accuracies": accuracies,
        "is_better": all(
            trained > other for trained, other in zip(accuracies["qat"], accuracies["float"], strict=True)
        ),
        "machine": document["machine"],
    }


def read_build(built: Mapping[str, Any]) -> dict[str, Any]:
    return {"float": built["fp32"]["accuracy"]["top1"], **read_row(built["int8"])}


def read_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return what int8 has: its accuracy, how near it is to its float, and whether a build takes it."""
    measured = row["measured"]
    return {
        "accuracy": row["accuracy"]["top1"],
        "agreement": measured["top1_agreement"],
        "snr_db": measured["snr_db"],
        "verdict": "refused" if row["verdict"] == "rejected" else "passes",
    }
