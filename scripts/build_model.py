"""Build model_store/<name>.mar from a recipe: export, verify and time each candidate, pack the fastest that passes.

    python scripts/build_model.py recipes/resnet50.yaml
    python scripts/build_model.py recipes/resnet50.yaml --weights random --backend openvino --precision bf16
    python scripts/build_model.py examples/digits_classification/recipe.yaml --json

What was tried, measured and chosen is printed, and written to exports/<name>/candidates.json.
"""

from pathlib import Path

import orjson
from rich.console import Console
from rich.table import Table

from mar_tools.archive import build_archive
from mar_tools.building import Candidate, build_candidates, choose, write_candidates
from mar_tools.command_line import EXPORTS, HANDLERS, MODEL_STORE, new_parser, run
from mar_tools.recipes import read_recipe
from vision_serving.errors import ConfigError


def main() -> None:
    parser = new_parser(__doc__)
    parser.add_argument("recipe", type=Path, help="a recipe yaml")
    parser.add_argument("--weights", help="a torchvision weights name, a .safetensors or .pth file, or `random`")
    parser.add_argument("--backend", help="auto, or the backend to use")
    parser.add_argument("--precision", help="auto, fp32 or bf16")
    parser.add_argument("--model-store", type=Path, default=MODEL_STORE, help="folder for the archive")
    parser.add_argument("--exports", type=Path, default=EXPORTS, help="folder for what is between the steps")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    arguments = parser.parse_args()
    recipe = read_recipe(
        arguments.recipe, weights=arguments.weights, backend=arguments.backend, precision=arguments.precision
    )
    arguments.model_store.mkdir(parents=True, exist_ok=True)  # a folder that cannot be written is better known now
    console = Console(stderr=True)
    with console.status(recipe.name) as status:
        built = build_candidates(recipe, arguments.exports, lambda step: status.update(f"{recipe.name}: {step}"))
        write_candidates(built, arguments.exports / recipe.name / "candidates.json")
        chosen = choose(built)
        if chosen is None:
            console.print(candidate_table(built, None))
            raise ConfigError(f"{recipe.name}: no candidate passed: {'; '.join(c.verdict for c in built)}")
        status.update(f"{recipe.name}: pack")
        archive = build_archive(Path(chosen.folder), HANDLERS, arguments.model_store)
    if arguments.json:
        print(orjson.dumps({"archive": str(archive), "chosen": chosen, "candidates": built}).decode())
    else:
        console.print(candidate_table(built, chosen))
        print(archive)


def candidate_table(built: list[Candidate], chosen: Candidate | None) -> Table:
    table = Table("backend", "precision", "images/s", "agreement with eager fp32", "verdict")
    for candidate in built:
        speed = "" if candidate.images_per_s is None else f"{candidate.images_per_s:g}"
        measured = "\n".join(f"{name} {value:.4g}" for name, value in candidate.measured.items())
        verdict = "chosen" if candidate is chosen else candidate.verdict
        table.add_row(candidate.backend, candidate.precision, speed, measured, verdict)
    return table


if __name__ == "__main__":
    run(main)
