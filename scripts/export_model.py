"""Export a recipe's model for one backend and precision into exports/<name>/<backend>-<precision>/.

    python scripts/export_model.py recipes/resnet50.yaml --backend openvino --precision bf16
    python scripts/export_model.py recipes/resnet50.yaml --weights random

Without --backend it writes the eager fp32 reference that verify_model.py compares with; that is for the CPU. The others
are for a GPU where there is one, and their folders end in -cuda then, or for the --device that is given.
"""

from pathlib import Path

from mar_tools.command_line import EXPORTS, new_parser, run
from mar_tools.exporting.export import export_model
from mar_tools.exporting.exporters import load_exporter
from mar_tools.locking import building
from mar_tools.machine import default_device
from mar_tools.models.checkpoints import load_checkpoint
from mar_tools.models.recipes import read_recipe


def main() -> None:
    parser = new_parser(__doc__)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--backend", default="eager")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--weights", help="a torchvision weights name, a .safetensors or .pth file, or `random`")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: cuda where there is a GPU, else cpu")
    parser.add_argument("--exports", type=Path, default=EXPORTS, help="folder for the export")
    arguments = parser.parse_args()
    is_reference = (arguments.backend, arguments.precision) == ("eager", "fp32")
    device_type = arguments.device or ("cpu" if is_reference else default_device())
    load_exporter(arguments.backend, arguments.precision, device_type)
    recipe = read_recipe(arguments.recipe, weights=arguments.weights)
    with building(arguments.exports, recipe.name):
        checkpoint = load_checkpoint(recipe)
        print(export_model(recipe, checkpoint, arguments.backend, arguments.precision, arguments.exports, device_type))


if __name__ == "__main__":
    run(main)
