"""Write a recipe for a model that is there: what its file says, and a comment where something had to be assumed.

    python scripts/new_recipe.py flowers.pth --labels flowers.json
    python scripts/new_recipe.py yolov8n.onnx
    python scripts/new_recipe.py model_store/densenet161.mar       # of TorchServe's image_classifier, object_detector
    python scripts/new_recipe.py densenet161.tar.gz                # or a folder, of the other archive formats
    python scripts/new_recipe.py my_vit/                           # a folder of Hugging Face
    python scripts/new_recipe.py resnet50.a1_in1k                  # a name of torchvision or timm
    python scripts/new_recipe.py detector.onnx --images pictures   # its scaling is found with pictures that it knows

No code of the file runs. An ONNX file is asked for its answers on pictures. The recipe lies beside the file. That of an
archive lies in a folder of its own here, with the network and its labels. The last line printed builds it.
"""

import argparse
from pathlib import Path
from typing import get_args

from mar_tools.command_line import name_command, new_parser, print_json, run
from mar_tools.drafting.conventions import LIKE, apply_convention
from mar_tools.drafting.drafts import Draft, Hints, write_draft
from vision_serving.errors import ConfigError
from vision_serving.options import Task


def main() -> None:
    given = parse_arguments()
    from mar_tools.drafting.forms import draft_recipe  # after the options: needs PyTorch
    from mar_tools.models.recipes import NAME

    check_files(given.labels, given.images)
    if given.name is not None and not NAME.fullmatch(given.name):
        raise ConfigError(f"--name {given.name!r}: expected letters, digits, `_`, `.` and `-`, a letter or digit first")
    hints = Hints(given.name, given.task, given.labels, given.images, given.architecture)
    draft = apply_convention(draft_recipe(given.model, hints), given.like)
    recipe = given.output or place_for(Path(given.model), draft)
    write_draft(draft, recipe, f"Written by new_recipe.py from {Path(given.model).name}.", given.force)
    command = name_command("build_model.py", recipe)
    if given.json:
        families = [{"like": hint.like, "why": hint.why} for hint in draft.hints]
        found = {"recipe": str(recipe), "files": sorted(draft.files), "not_known": draft.notes, "hints": families}
        print_json({**found, "next": command})
        return
    for note in draft.notes:
        print(f"not known: {note}")
    for hint in draft.hints:
        print(f"hint: {hint}")
    print(f"{recipe}\nnext: {command}")


def check_files(labels: Path | None, images: Path | None) -> None:
    """Raises ConfigError for labels that cannot be read and for a folder that is none, before the model is read."""
    from mar_tools.models.label_files import read_labels_file  # after the options, as above

    if labels is not None:
        read_labels_file(labels)
    if images is not None and not images.is_dir():
        raise ConfigError(f"--images {images}: no such folder; expected a folder of pictures that the model knows")


def place_for(model: Path, draft: Draft) -> Path:
    """Return where a recipe goes: beside its file, here for a name, in a folder here for an archive."""
    beside = model.parent if model.exists() else Path()
    return (Path(draft.name) if draft.is_unpacked else beside) / f"{draft.name}.yaml"


def parse_arguments() -> argparse.Namespace:
    parser = new_parser(__doc__)
    parser.add_argument("model", help="a file, a folder of Hugging Face, or a name of torchvision or timm")
    parser.add_argument("--output", type=Path, metavar="RECIPE", help="where the recipe goes; default: beside the file")
    parser.add_argument("--name", help="of the model; default: the name of the file")
    parser.add_argument("--task", choices=get_args(Task), help="where the file does not say it")
    parser.add_argument("--labels", type=Path, metavar="FILE", help="the names of the classes")
    parser.add_argument("--images", type=Path, metavar="FOLDER", help="pictures that the model knows")
    parser.add_argument("--architecture", metavar="NAME", help="of torchvision or timm, for a file of weights")
    parser.add_argument("--like", choices=LIKE, help="prepare pictures as programs of this family do")
    parser.add_argument("--force", action="store_true", help="write over a recipe that is there")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    return parser.parse_args()


if __name__ == "__main__":
    run(main)
