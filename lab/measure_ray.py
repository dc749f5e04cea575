"""Offline prediction by processes of this machine, in turns with Ray, and on clusters of 1, 2 and 3 raylets.

    python lab/measure_ray.py model_store/digits.mar --images examples/digits_classification/heldout \
        --json lab/results/performance/ray.json

Each raylet has one core, on loopback. With more raylets than this machine has cores, the rate cannot rise.
"""

import os
import runpy
import tempfile
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

if __name__ == "__main__":  # outside the environment, this names the command that helps
    runpy.run_path(str(Path(__file__).parents[1] / "scripts/mar_tools/__init__.py"))

from mar_tools.command_line import new_parser, positive_count, run
from mar_tools.images import find_images
from mar_tools.terminal import print_line
from vision_serving.cores import usable_cores

RAYLETS = (1, 2, 3)
STORE_BYTES = 128 * 1024**2
PATIENCE_S = 180.0


def main() -> None:
    arguments = parse_arguments()
    from lab.testbed.offline import BATCH, link_files
    from lab.testbed.rounds import write_rounds

    with tempfile.TemporaryDirectory(prefix="offline-", dir=arguments.folder) as work:
        folder = Path(work)
        pictures = link_files(find_images(arguments.images), folder / "pictures", arguments.count)
        rounds = []
        for number in range(arguments.rounds):
            print_line(f"round {number + 1} of {arguments.rounds}")
            rounds.append(measure_round(arguments.archive, pictures, arguments.count, folder / f"rows-{number}"))
    write_rounds(arguments.json, rounds, count=arguments.count, cores=usable_cores(), batch_size=BATCH)


def parse_arguments() -> Namespace:
    parser = new_parser(__doc__)
    parser.add_argument("archive", type=Path)
    parser.add_argument("--images", type=Path, required=True, help="a folder, whose pictures are taken again and again")
    parser.add_argument("--count", type=positive_count, default=40_000, help="of pictures in a run (40000)")
    parser.add_argument("--rounds", type=positive_count, default=3)
    parser.add_argument("--folder", type=Path, help="on the disk to read from and write to; a temporary one")
    parser.add_argument("--json", type=Path, required=True)
    return parser.parse_args()


def measure_round(archive: Path, pictures: Path, count: int, output: Path) -> dict[str, float]:
    """Return images per second of each way, once all processes have loaded the model."""
    from lab.testbed.offline import BATCH, measure_offline

    def measure(name: str, *options: object) -> float:
        run = ("--batch-size", BATCH, *options)
        return measure_offline(archive, pictures, count, output / name, *run)["offline_images_per_s"]

    output.mkdir()
    rates = {"local": measure("local", "--processes", usable_cores()), "ray": measure("ray", "--engine", "ray")}
    for raylets in RAYLETS:
        with open_cluster(raylets) as address:
            rates[f"raylets_{raylets}"] = measure(f"raylets-{raylets}", "--engine", "ray", "--address", address)
    return {f"{name}_images_per_s": rate for name, rate in rates.items()}


@contextmanager
def open_cluster(raylets: int) -> Iterator[str]:
    """Start so many raylets of one core each, on loopback. Give the address."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    from ray.cluster_utils import Cluster

    (Path(tempfile.gettempdir()) / "ray").mkdir(exist_ok=True)
    machine = {"num_cpus": 1, "object_store_memory": STORE_BYTES}
    cluster = Cluster(initialize_head=True, head_node_args={**machine, "include_dashboard": False})
    try:
        for _ in range(raylets - 1):
            cluster.add_node(**machine)
        cluster.wait_for_nodes(PATIENCE_S)
        yield cluster.address
    finally:
        cluster.shutdown()


if __name__ == "__main__":
    run(main)
