"""Build model_store/<name>.mar from a recipe: export, verify and time each candidate, pack the fastest that passes.

    python scripts/build_model.py recipes/resnet50.yaml
    python scripts/build_model.py recipes/resnet50.yaml --weights random
    python scripts/build_model.py recipes/resnet50.yaml --backend openvino
    python scripts/build_model.py recipes/resnet50.yaml --budget-min 5 --json

Candidates are the backends and precisions that the recipe leaves, the most promising first. Each is exported and
compared with eager fp32 in a process of its own. One that crashes, hangs or is refused is a row in the table, with the
reason. Its output is in exports/<name>/<backend>-<precision>.log.

Each candidate that passes is timed end to end, from encoded images to JSON, with batch 1 and with the batch size that
config.properties gives the model (8 where it gives none). The fastest at that batch size is packed. The table is
printed, written to exports/<name>/candidates.json, and packed too, in the archive's verification.json.

An archive in the server's model store is named in config.properties, where it is not yet, with the workers and batches
that suit this machine by a rule; --keep-settings leaves the file alone, and tune_model.py measures what is best.

exports/<name>/report.html shows all of it to look at: pictures with their answers, plots, what changed. The last lines
are what to type next: a prediction with the archive, and what serves it.
"""

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from mar_tools.command_line import (
    EXPORTS,
    HANDLERS,
    MODEL_STORE,
    ROOT,
    name_command,
    new_parser,
    not_negative,
    positive,
    print_json,
    recipe_file,
    run,
)
from mar_tools.locking import building
from mar_tools.machine import choose_device_type
from mar_tools.terminal import print_tables, show_steps
from vision_serving.config import Precision, read_handler_config
from vision_serving.errors import ConfigError
from vision_serving.worker.server_settings import read_batch_size

if TYPE_CHECKING:
    from mar_tools.models.recipes import Recipe


def main() -> None:
    given = parse_arguments()
    from mar_tools.building.build import BuildOptions, build_candidates, folder_of  # after the options: needs PyTorch
    from mar_tools.building.candidates import find_chosen
    from mar_tools.building.packing import build_archive
    from mar_tools.building.table import candidate_table, describe_preprocessing, describe_slow_choice
    from mar_tools.exporting.export_folders import REFERENCE
    from mar_tools.models.checkpoints import check_files
    from mar_tools.models.recipes import read_recipe
    from mar_tools.reporting.build_reports import report_build, report_refused
    from mar_tools.tuning.deployment import write_settings_by_rule

    recipe = read_recipe(
        given.recipe, given.trust_remote_code, weights=given.weights, backend=given.backend, precision=given.precision
    )
    check_files(recipe)
    options = BuildOptions(
        device_type=choose_device_type(given.device),
        budget_s=60 * given.budget_min,
        timeout_s=given.candidate_timeout_s or recipe.candidate_timeout_s,
        batch_size=read_batch_size(given.config.read_text(encoding="utf-8"), recipe.name) or BuildOptions.batch_size,
    )
    given.model_store.mkdir(parents=True, exist_ok=True)  # a folder that cannot be written is better known now
    with building(given.exports, recipe.name), show_steps(recipe.name) as announce:
        began = time.time()
        try:
            rows = build_candidates(recipe, given.exports, options, announce)
        except ConfigError as error:
            report = report_refused(recipe, given.exports, began)
            raise ConfigError(f"{error}{look_at(report)}") from error
        report = report_build(recipe, given.exports, rows)
    chosen = find_chosen(rows)
    if not given.json or chosen is None:
        config = read_handler_config(given.exports / recipe.name / REFERENCE / "model-config.yaml")
        lines = [describe_preprocessing(config.preprocessing), describe_slow_choice(rows)]
        print_tables(candidate_table(rows), *filter(None, lines), to_stderr=True)
    if chosen is None:
        reasons = "; ".join(f"{row.name} {row.verdict}: {row.reason}" for row in rows if row.reason)
        raise ConfigError(f"{recipe.name}: no candidate passed: {reasons}{look_at(report)}")
    archive = build_archive(folder_of(chosen, recipe, given.exports), HANDLERS, given.model_store)
    settings = None if given.keep_settings else write_settings_by_rule(given.config, archive)
    if given.json:
        found = {"archive": str(archive), "chosen": chosen, "candidates": rows, "report": report and str(report)}
        print_json({**found, "settings": settings and settings.as_properties(), "next": predict_one(recipe, archive)})
        return
    print(archive)
    if report is not None:
        print(report)
    if settings is not None:
        print(f"{given.config.name}: {recipe.name} with {settings}, which suits this machine")
    print(f"next: {predict_one(recipe, archive)}")
    if archive.parent.resolve() == MODEL_STORE:
        registered = name_command("manage_models.py", "register", archive.name)
        print(f"then: {name_command('serve_models.py', 'start')}\nor, where the server runs: {registered}")


def predict_one(recipe: "Recipe", archive: Path) -> str:
    """Return the command that predicts one of the pictures that the archive was verified with."""
    from mar_tools.images import choose_images

    images = recipe.verification.images
    (picture,) = choose_images(None if images is None else recipe.path(images), 1, "verification")
    return name_command("predict_images.py", "--archive", archive, picture)


def look_at(report: Path | None) -> str:
    return "" if report is None else f"; look at {report}"


def parse_arguments() -> argparse.Namespace:
    parser = new_parser(__doc__)
    parser.add_argument("recipe", type=recipe_file, help="a recipe yaml")
    parser.add_argument("--weights", metavar="W", help="published weights, a file of weights, or `random`")
    parser.add_argument("--backend", metavar="B", help="auto, or the backend to use; default: what the recipe says")
    parser.add_argument("--precision", choices=("auto", *get_args(Precision)), help="default: what the recipe says")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: cuda where there is a GPU, else cpu")
    parser.add_argument(
        "--budget-min", type=not_negative, metavar="MIN", default=20.0, help="begin no candidate later (default: 20)"
    )
    parser.add_argument(
        "--candidate-timeout-s", type=positive, metavar="S", help="give one up then; default: the recipe's, or 600"
    )
    parser.add_argument(
        "--config", type=Path, metavar="FILE", default=ROOT / "config.properties", help="the server's settings"
    )
    parser.add_argument("--keep-settings", action="store_true", help="write no settings of the model to --config")
    parser.add_argument("--model-store", type=Path, metavar="FOLDER", default=MODEL_STORE, help="for the archive")
    parser.add_argument("--trust-remote-code", action="store_true", help="run Python code that comes with the model")
    parser.add_argument("--exports", type=Path, metavar="FOLDER", default=EXPORTS, help="for what is between the steps")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    return parser.parse_args()


if __name__ == "__main__":
    run(main)
