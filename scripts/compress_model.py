"""Make a trained classifier smaller and faster, with the proof of what that costs; leave recipes that build.

    python scripts/compress_model.py flowers_model/recipe.yaml --data flowers/ --prune 0.5 --output half/
    python scripts/compress_model.py small/recipe.yaml --data flowers/ --distil-from big/recipe.yaml --output s/
    python scripts/compress_model.py flowers_model/recipe.yaml --data flowers/ --qat --output int8/
    python scripts/compress_model.py flowers_model/recipe.yaml --data flowers/ --auto --output found/

--size takes smaller pictures, --prune takes channels out, --distil-from learns another network's answers, --qat trains
with the values of int8. Several are done in this order. Each is followed by a training on the pictures of DATA, a
folder as train_model.py takes it. What the recipe verifies with never trains.

The result's recipe has a `baseline`: the accuracy before, on the same pictures. Its `min_accuracy` is that less
--max-accuracy-drop, so a build refuses a network that lost more.

--auto tries a ladder of such steps, each learnt from the original's own answers. It builds every result, times all of
them in turns, and draws accuracy against speed. The last line is what to type next.
"""

import argparse
from pathlib import Path
from typing import Any

from mar_tools.command_line import (
    name_command,
    new_parser,
    not_negative,
    positive,
    positive_count,
    print_json,
    recipe_file,
    run,
)
from mar_tools.machine import choose_device_type
from mar_tools.terminal import new_table, number_column, print_line, print_tables


def main() -> None:
    given = parse_arguments()
    from mar_tools.compressing.running import Request, run_auto, run_steps  # after the options: these need PyTorch
    from mar_tools.compressing.steps import Steps
    from mar_tools.training.settings import Settings
    from vision_serving.validation import parse_config

    steps = Steps(size=given.size, prune=given.prune, teacher=given.distil_from, hint=given.hint, quantise=given.qat)
    stated = {key: value for key in Settings.model_fields if (value := getattr(given, key, None)) is not None}
    parse_config(Settings, stated, "compress_model.py")
    request = Request(
        recipe=given.recipe,
        data=given.data,
        output=given.output,
        name=given.name,
        steps=steps,
        stated=stated,
        max_drop=given.max_accuracy_drop,
        device_type=choose_device_type(given.device),
        budget_s=60 * given.budget_min,
        resume=given.resume,
        force=given.force,
    )
    found = run_auto(request) if given.auto else run_steps(request)
    chosen = found["chosen"] if given.auto else found
    command = name_command("build_model.py", chosen["recipe"]) if chosen else None
    if given.json:
        print_json({**found, "next": command})
        return
    if given.auto:
        from mar_tools.compressing.fronts import front_table

        print_tables(front_table(found))
        print(found["plot"])
    else:
        tell_result(found, given.max_accuracy_drop)
        command = command if found["is_within"] else None
    if command:
        print(f"next: {command}")


def tell_result(found: dict[str, Any], max_drop: float) -> None:
    """Print what a network was before and after."""
    table = new_table(f"{found['pictures']} test pictures", number_column("accuracy"), number_column("parameters"))
    table.add_row("before", f"{found['baseline_accuracy']:.4f}", f"{found['parameters_before']:,}")
    table.add_row("after", f"{found['accuracy']:.4f}", f"{found['parameters']:,}")
    print_tables(table)
    if not found["is_within"]:
        print_line(
            f"WARNING: accuracy fell by {found['drop']:.4f}, and at most {max_drop:g} may be lost (one picture is "
            f"{1 / found['pictures']:.2g}): a build will refuse this recipe; take less away, train for more --epochs, "
            "or allow more by --max-accuracy-drop"
        )
    print(found["recipe"])


def share(text: str) -> float:
    """Read an argument that has to be above 0 and below 1."""
    number = positive(text)
    if number >= 1:
        raise argparse.ArgumentTypeError(f"expected a share above 0 and below 1, as 0.5, got {text!r}")
    return number


def layer_pair(text: str) -> tuple[str, str]:
    """Read the names of two layers."""
    own, sign, taught = text.partition("=")
    if not (own and sign and taught):
        raise argparse.ArgumentTypeError(f"expected LAYER=LAYER_OF_THE_TEACHER, got {text!r}")
    return own, taught


def parse_arguments() -> argparse.Namespace:
    parser = new_parser(__doc__)
    parser.add_argument(
        "recipe", type=recipe_file, help="of the network to compress; it verifies with labelled pictures"
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with a folder of pictures for each class")
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="for the recipe and all it names")
    parser.add_argument("--name", help="of the model; default: that of the folder")
    parser.add_argument("--size", type=positive_count, metavar="PIXELS", help="of the square picture from now on")
    parser.add_argument("--prune", type=share, metavar="SHARE", help="of the channels, which are taken out")
    parser.add_argument("--distil-from", type=recipe_file, metavar="RECIPE", help="whose answers are learnt")
    parser.add_argument(
        "--hint", type=layer_pair, metavar="A=B", help="learn the features of the teacher's layer B in A"
    )
    parser.add_argument(
        "--qat", nargs="?", const="affine", choices=("affine", "symmetric"), help="train int8; symmetric: for TensorRT"
    )
    parser.add_argument("--auto", action="store_true", help="try a ladder of steps, build and time each")
    parser.add_argument(
        "--budget-min", type=positive, metavar="MIN", default=120.0, help="--auto begins nothing later (default: 120)"
    )
    parser.add_argument(
        "--max-accuracy-drop", type=not_negative, metavar="D", default=0.01, help="that may be lost (default: 0.01)"
    )
    parser.add_argument("--epochs", type=positive_count, help="at most, of each training (default: 20)")
    parser.add_argument("--patience", type=positive_count, help="epochs without a better one (default: 8)")
    parser.add_argument("--batch-size", type=positive_count, help="default: 32")
    parser.add_argument("--learning-rate", type=positive, help="the highest; a tenth with --qat (default: 0.001)")
    parser.add_argument(
        "--augment", choices=("none", "light", "standard"), help="default: that of the training, or light"
    )
    parser.add_argument("--no-flip", dest="flip", action="store_const", const=False, help="left and right matter")
    parser.add_argument("--seed", type=int, help="default: 0")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: cuda where there is a GPU, else cpu")
    parser.add_argument("--resume", action="store_true", help="go on with what is in the folder")
    parser.add_argument("--force", action="store_true", help="begin anew where the folder holds a training")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    given = parser.parse_args()
    asked = any((given.size, given.prune, given.distil_from, given.qat))
    if given.auto and asked:
        parser.error("--auto chooses the steps itself: leave --size, --prune, --distil-from and --qat out")
    if not (given.auto or asked):
        parser.error("what to do is missing: give one or more of --size, --prune, --distil-from and --qat, or --auto")
    if given.hint and not given.distil_from:
        parser.error("--hint needs --distil-from: the features of a teacher")
    return given


if __name__ == "__main__":
    run(main)
