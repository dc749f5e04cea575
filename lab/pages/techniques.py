"""The values of docs/evidence/techniques.md."""

from pathlib import Path
from statistics import median
from typing import Any

import orjson

MODES = {"gradients": "as it is", "no_grad": "`no_grad`", "inference_mode": "`inference_mode`"}


def read_values(path: Path) -> dict[str, Any]:
    document = orjson.loads(path.read_bytes())
    milliseconds = {
        (network, mode): median(entry[f"{network}_{mode}_ms"] for entry in document["rounds"])
        for network in document["sides"]
        for mode in MODES
    }
    gains = [
        milliseconds[network, "gradients"] / milliseconds[network, "inference_mode"] for network in document["sides"]
    ]
    beside = [
        milliseconds[network, "no_grad"] / milliseconds[network, "inference_mode"] for network in document["sides"]
    ]
    return {
        "modes": MODES.values(),
        "rows": [
            [network, side, *(f"{milliseconds[network, mode]:.1f}" for mode in MODES)]
            for network, side in document["sides"].items()
        ],
        "rounds": len(document["rounds"]),
        "passes": document["passes"],
        "gains": [min(gains), max(gains)],
        "beside": [min(beside), max(beside)],
    }
