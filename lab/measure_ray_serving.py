"""Ray Serve in turns with TorchServe: the same archive, workers, batches and clients.

    python lab/measure_ray_serving.py model_store/digits.mar --images examples/digits_classification/heldout \
        --json lab/results/performance/ray_serving.json

In each round one server after the other is started, asked by 16 connections, and ended.
"""

import runpy
from argparse import Namespace
from pathlib import Path

if __name__ == "__main__":  # outside the environment, this names the command that helps
    runpy.run_path(str(Path(__file__).parents[1] / "scripts/mar_tools/__init__.py"))

from mar_tools.command_line import new_parser, positive_count, run
from mar_tools.images import load_encoded_images
from mar_tools.terminal import print_line
from vision_serving.cores import usable_cores

PICTURES = 64


def main() -> None:
    arguments = parse_arguments()
    from lab.testbed import ray_serving as serving
    from lab.testbed.rounds import write_rounds

    requests = serving.prepare(arguments.archive, load_encoded_images(arguments.images, PICTURES))
    rounds = []
    for number in range(arguments.rounds):
        print_line(f"round {number + 1} of {arguments.rounds}")
        ours = serving.measure_torchserve(arguments.archive, requests)
        rounds.append(ours | serving.measure_ray(arguments.archive, requests))
    settings = {"connections": serving.CONNECTIONS, "batch_size": serving.BATCH, "delay_ms": serving.DELAY_MS}
    write_rounds(arguments.json, rounds, **settings, workers=usable_cores())


def parse_arguments() -> Namespace:
    parser = new_parser(__doc__)
    parser.add_argument("archive", type=Path)
    parser.add_argument("--images", type=Path, required=True, help="a folder, whose pictures are sent")
    parser.add_argument("--rounds", type=positive_count, default=3)
    parser.add_argument("--json", type=Path, required=True)
    return parser.parse_args()


if __name__ == "__main__":
    run(main)
