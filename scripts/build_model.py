"""Build model_store/<name>.mar from a recipe: export, verify and time each candidate, pack the fastest that passes.

    python scripts/build_model.py recipes/resnet50.yaml
    python scripts/build_model.py recipes/resnet50.yaml --weights random --backend openvino --precision int8
    python scripts/build_model.py recipes/resnet50.yaml --budget-min 5 --device cpu --json

Candidates are the backends and precisions that the recipe leaves, the most promising first. Each is exported and
compared with eager fp32 in a process of its own: one that crashes, hangs or is refused is a row in the table, with the
reason, and its output is in exports/<name>/<backend>-<precision>.log. What passes is timed in turns, from encoded
images to JSON in process, with batches of 1 and of the size that config.properties gives the model (8 where it gives
none); the fastest at the latter is packed. The table is printed, written to exports/<name>/candidates.json, and packed
too, in the archive's verification.json.
"""

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import get_args

import orjson
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from mar_tools.building.build import AnnounceTrial, BuildOptions, build_candidates, folder_of
from mar_tools.building.candidates import find_chosen
from mar_tools.building.packing import build_archive
from mar_tools.building.table import candidate_table, describe_preprocessing
from mar_tools.command_line import EXPORTS, HANDLERS, MODEL_STORE, ROOT, new_parser, run
from mar_tools.exporting.export_folders import REFERENCE
from mar_tools.locking import building
from mar_tools.machine import default_device
from mar_tools.models.recipes import Recipe, read_recipe
from vision_serving.config import Precision, read_handler_config
from vision_serving.errors import ConfigError
from vision_serving.worker.server_settings import read_batch_size

LOG_COLUMNS = 120  # where no terminal says how many there are


def main() -> None:
    arguments = parse_arguments()
    recipe = read_recipe(
        arguments.recipe, weights=arguments.weights, backend=arguments.backend, precision=arguments.precision
    )
    options = choose_options(recipe, arguments)
    arguments.model_store.mkdir(parents=True, exist_ok=True)  # a folder that cannot be written is better known now
    console = Console(stderr=True, width=None if sys.stderr.isatty() else LOG_COLUMNS)
    with building(arguments.exports, recipe.name), show_progress(console, recipe.name) as announce:
        rows = build_candidates(recipe, arguments.exports, options, announce)
    chosen = find_chosen(rows)
    if not arguments.json or chosen is None:
        console.print(candidate_table(rows, recipe.task))
        config = read_handler_config(arguments.exports / recipe.name / REFERENCE / "model-config.yaml")
        console.print(describe_preprocessing(config.preprocessing), highlight=False)
    if chosen is None:
        reasons = "; ".join(f"{row.name} {row.verdict}: {row.reason}" for row in rows if row.reason)
        raise ConfigError(f"{recipe.name}: no candidate passed: {reasons}")
    archive = build_archive(folder_of(chosen, recipe, arguments.exports), HANDLERS, arguments.model_store)
    if arguments.json:
        print(orjson.dumps({"archive": str(archive), "chosen": chosen, "candidates": rows}).decode())
    else:
        print(archive)


def parse_arguments() -> argparse.Namespace:
    parser = new_parser(__doc__)
    parser.add_argument("recipe", type=Path, help="a recipe yaml")
    parser.add_argument("--weights", help="published weights, a .safetensors or .pth file, or `random`")
    parser.add_argument("--backend", help="auto, or the backend to use; default: what the recipe says")
    parser.add_argument("--precision", choices=("auto", *get_args(Precision)), help="default: what the recipe says")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: cuda where there is a GPU, else cpu")
    parser.add_argument("--budget-min", type=float, default=20.0, help="no candidate is begun later (default: 20)")
    parser.add_argument("--candidate-timeout-s", type=float, help="to give one up after; default: the recipe's, or 600")
    parser.add_argument("--config", type=Path, default=ROOT / "config.properties", help="where batch sizes stand")
    parser.add_argument("--model-store", type=Path, default=MODEL_STORE, help="folder for the archive")
    parser.add_argument("--exports", type=Path, default=EXPORTS, help="folder for what is between the steps")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    return parser.parse_args()


def choose_options(recipe: Recipe, arguments: argparse.Namespace) -> BuildOptions:
    if arguments.device == "cuda" and default_device() != "cuda":
        raise ConfigError("--device cuda: PyTorch finds no GPU that it can use here; leave the option out")
    properties = arguments.config.read_text(encoding="utf-8")
    return BuildOptions(
        device_type=arguments.device or default_device(),
        budget_s=60 * arguments.budget_min,
        timeout_s=arguments.candidate_timeout_s or recipe.candidate_timeout_s,
        batch_size=read_batch_size(properties, recipe.name) or BuildOptions.batch_size,
    )


@contextmanager
def show_progress(console: Console, name: str) -> Iterator[AnnounceTrial]:
    columns = (
        TextColumn(name),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=None)
        yield lambda step, done, total: progress.update(task, description=step, completed=done, total=total)


if __name__ == "__main__":
    run(main)
