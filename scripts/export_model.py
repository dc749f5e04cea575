"""Export a recipe's model for one backend and precision into exports/<name>/<backend>-<precision>/.

    python scripts/export_model.py recipes/resnet50.yaml
    python scripts/export_model.py recipes/resnet50.yaml --weights random
    python scripts/export_model.py recipes/resnet50.yaml --backend openvino

Without --backend it writes the eager fp32 reference that verify_model.py compares with, for the CPU. All other exports
are for the GPU where there is one, or for the --device that is given. Folders for a GPU end in -cuda.
"""

from pathlib import Path

from mar_tools.command_line import EXPORTS, new_parser, recipe_file, run
from mar_tools.locking import building
from mar_tools.machine import choose_device_type


def main() -> None:
    parser = new_parser(__doc__)
    parser.add_argument("recipe", type=recipe_file, help="a recipe yaml")
    parser.add_argument("--backend", metavar="B", default="eager", help="such as openvino (default: eager)")
    parser.add_argument("--precision", metavar="P", default="fp32", help="fp32, bf16, fp16 or int8 (default: fp32)")
    parser.add_argument("--weights", metavar="W", help="published weights, a file of weights, or `random`")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: cuda where there is a GPU, else cpu")
    parser.add_argument("--trust-remote-code", action="store_true", help="run Python code that comes with the model")
    parser.add_argument("--exports", type=Path, metavar="FOLDER", default=EXPORTS, help="for the export")
    given = parser.parse_args()
    from mar_tools.exporting.export import export_model  # after the options: these need PyTorch
    from mar_tools.exporting.exporters import load_exporter
    from mar_tools.models.checkpoints import load_checkpoint
    from mar_tools.models.recipes import read_recipe

    is_reference = (given.backend, given.precision) == ("eager", "fp32")
    device_type = choose_device_type(given.device or ("cpu" if is_reference else None))
    load_exporter(given.backend, given.precision, device_type)  # refused now, and not after a download of weights
    recipe = read_recipe(given.recipe, given.trust_remote_code, weights=given.weights)
    with building(given.exports, recipe.name):
        checkpoint = load_checkpoint(recipe)
        print(export_model(recipe, checkpoint, given.backend, given.precision, given.exports, device_type))


if __name__ == "__main__":
    run(main)
