"""What gradients cost where nobody wants them: the same forward pass as it is, in `no_grad`, and in `inference_mode`.

    python lab/measure_inference_modes.py --json lab/results/performance/inference_modes.json

Eager networks on the CPU, one picture at a time, in turns.
"""

import runpy
import time
from argparse import Namespace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

if __name__ == "__main__":  # outside the environment, this names the command that helps
    runpy.run_path(str(Path(__file__).parents[1] / "scripts/mar_tools/__init__.py"))

from mar_tools.command_line import new_parser, positive_count, run

if TYPE_CHECKING:
    from torch import nn

SIDES = {"mobilenet_v3_small": 96, "resnet50": 224, "vit_b_16": 224}
PASSES = 30  # of each kind in a round, in turns


def main() -> None:
    arguments = parse_arguments()
    from torchvision import models

    from lab.testbed.rounds import write_rounds

    networks = {name: models.get_model(name, weights=None).eval() for name in SIDES}
    rounds = [
        {
            f"{name}_{mode}_ms": round(milliseconds, 3)
            for name, network in networks.items()
            for mode, milliseconds in measure(network, SIDES[name]).items()
        }
        for _ in range(arguments.rounds)
    ]
    write_rounds(arguments.json, rounds, sides=SIDES, passes=PASSES)


def parse_arguments() -> Namespace:
    parser = new_parser(__doc__)
    parser.add_argument("--rounds", type=positive_count, default=5)
    parser.add_argument("--json", type=Path, required=True)
    return parser.parse_args()


def measure(network: "nn.Module", side: int) -> dict[str, float]:
    """Return the median milliseconds of a pass in each mode; what comes first changes with each turn."""
    import torch

    modes = {"gradients": torch.enable_grad, "no_grad": torch.no_grad, "inference_mode": torch.inference_mode}
    images = torch.rand(1, 3, side, side)
    found: dict[str, list[float]] = {name: [] for name in modes}
    order = list(modes)
    for _ in range(PASSES):
        order = [*order[1:], order[0]]
        for name in order:
            with modes[name]():
                started = time.perf_counter()
                network(images)
                found[name].append(1000 * (time.perf_counter() - started))
    return {name: median(times) for name, times in found.items()}


if __name__ == "__main__":
    run(main)
