"""Load-test served models, interleaved: closed loop, JPEG in, JSON out.

    python scripts/benchmark_model.py resnet50
    python scripts/benchmark_model.py resnet50 resnet50_stock --connections 16 --rounds 5 --output results.json

The images are those of examples/photographs, or those of --images FOLDER. Medians over the rounds are printed,
with the ratio to the last model named. The client shares the cores with the server: compare only what ran in one run.
"""

import platform
from dataclasses import asdict
from pathlib import Path

import orjson
from rich.console import Console
from rich.table import Column, Table

from mar_tools.benchmarking.closed_loop import Target, run_interleaved, summarise
from mar_tools.command_line import ROOT, new_parser, run
from mar_tools.images import load_encoded_images
from mar_tools.machine import cpu_name
from mar_tools.torchserve_api import TorchServeClient, read_address
from vision_serving.resources import usable_cores


def main() -> None:
    parser = new_parser(__doc__)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--images", type=Path)
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--round-s", type=float, default=15.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--config", type=Path, default=ROOT / "config.properties", help="the server's settings")
    parser.add_argument("--output", type=Path, help="write the results as JSON")
    arguments = parser.parse_args()
    address = read_address(arguments.config)
    client = TorchServeClient(address)
    served = {model: client.describe(model)[0] for model in arguments.models}
    headers = {"Authorization": f"Bearer {client.token('inference')}", "Content-Type": "application/octet-stream"}
    targets = [Target(name, address.inference, f"/predictions/{name}", headers) for name in arguments.models]
    images = load_encoded_images(arguments.images, 200)
    with Console(stderr=True).status("measuring"):
        rounds = run_interleaved(targets, images, arguments.connections, arguments.round_s, arguments.rounds)
    summary = summarise(rounds)
    Console().print(summary_table(summary))
    if arguments.output:
        settings = ("minWorkers", "batchSize", "maxBatchDelay")
        result = {
            "machine": {"cpu": cpu_name(), "cores": usable_cores(), "architecture": platform.machine()},
            "connections": arguments.connections,
            "models": {name: {key: entry[key] for key in settings} for name, entry in served.items()},
            "summary": summary,
            "rounds": [asdict(entry) for entry in rounds],
        }
        arguments.output.write_bytes(orjson.dumps(result, option=orjson.OPT_INDENT_2))


def summary_table(summary: dict[str, dict[str, float]]) -> Table:
    base = list(summary.values())[-1]["requests_per_s"]
    table = Table(Column("model", overflow="fold"), "requests/s (least - most)", "ratio", "p50 ms", "p99 ms", "failed")
    for name, row in summary.items():
        spread = f"{row['requests_per_s']:g} ({row['requests_per_s_min']:g} - {row['requests_per_s_max']:g})"
        ratio = f"{row['requests_per_s'] / base:.2f}" if base else ""
        p50, p99 = f"{row['latency_p50_ms']:g}", f"{row['latency_p99_ms']:g}"
        table.add_row(name, spread, ratio, p50, p99, f"{row['failed']:g}")
    return table


if __name__ == "__main__":
    run(main)
