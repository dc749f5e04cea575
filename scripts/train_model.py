"""Fine-tune a classifier or a detector on pictures; leave weights, a recipe and the pictures that prove it.

    python scripts/train_model.py flowers/ --model mobilenet_v3_large --output flowers_model/
    python scripts/train_model.py flowers/ --model resnet18 --output m/ --epochs 30 --augment light --no-flip
    python scripts/train_model.py flowers/ --model efficientnet_b0 --output m/ --search 12
    python scripts/train_model.py flowers/ --model mobilenet_v3_large --output flowers_model/ --resume
    python scripts/train_model.py boats/ --model ssdlite320_mobilenet_v3_large --output boats_model/
    python scripts/train_model.py digits/ --model compact --size 128 --no-flip --output digits_model/

A classifier needs a folder of pictures for each class; or `train`, `val` and `test`, each with such folders. A
detector needs annotations in COCO's form: annotations.json, instances*.json or _annotations.coco.json, beside or above
the pictures. Parts that are missing are divided off, and split.csv keeps who is in which.

Models are classifiers of torchvision and timm, detectors of torchvision, and `compact`, the small detector of the
examples. All layers but the last begin with the published weights, or with those of a file.

The best epoch of the validation is kept. What it reaches on the test pictures, prepared as the server does it, becomes
the recipe's `min_accuracy` or `min_map`. training.csv and curves.png show how it went. The last line is what to type
next.
"""

import argparse
import os
from pathlib import Path

from mar_tools.command_line import name_command, new_parser, not_negative, positive, positive_count, print_json, run
from mar_tools.machine import choose_device_type
from mar_tools.terminal import new_table, number_column, print_tables
from vision_serving.cores import WAIT_POLICY
from vision_serving.errors import ConfigError


def main() -> None:
    given = parse_arguments()
    os.environ.update({**WAIT_POLICY, **os.environ})  # before PyTorch, whose threads read it once
    from mar_tools.models.recipes import NAME  # after the options: needs PyTorch
    from mar_tools.training.courses import Request
    from mar_tools.training.running import train
    from mar_tools.training.settings import Settings

    name = given.name or given.output.resolve().name
    if not NAME.fullmatch(name):
        raise ConfigError(f"--name {name!r}: expected letters, digits, `_`, `.` and `-`, a letter or digit first")
    stated = {key: value for key in Settings.model_fields if (value := getattr(given, key, None)) is not None}
    found = train(
        Request(
            data=given.data,
            output=given.output,
            name=name,
            model=given.model,
            weights=given.weights,
            size=given.size,
            search=given.search,
            stated=stated,
            device_type=choose_device_type(given.device),
            resume=given.resume,
            force=given.force,
        )
    )
    command = name_command("build_model.py", found["recipe"])
    if given.json:
        print_json({**found, "next": command})
        return
    judged_by = found["judged_by"]
    table = new_table("", number_column("pictures"), number_column({"map": "mAP"}.get(judged_by, judged_by)))
    for title, part in ((f"validation, epoch {found['best_epoch']}", "validation"), ("test", "test")):
        table.add_row(title, str(found["pictures"][part]), f"{found[f'{part}_{judged_by}']:.4f}")
    print_tables(table)
    print(f"{found['recipe']}\nnext: {command}")


def parse_arguments() -> argparse.Namespace:
    parser = new_parser(__doc__)
    parser.add_argument("data", type=Path, help="folder with pictures in classes, or with COCO annotations")
    parser.add_argument("--model", required=True, metavar="NAME", help="a classifier or detector; see above")
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="for the recipe and all it names")
    parser.add_argument(
        "--weights", default="default", metavar="W", help="to begin with: published ones (default), a file, or random"
    )
    parser.add_argument("--name", help="of the model; default: that of the folder")
    parser.add_argument(
        "--size",
        type=positive_count,
        metavar="PIXELS",
        help="of the square picture, or the shorter side; default: the network's",
    )
    parser.add_argument("--epochs", type=positive_count, help="at most (default: 20)")
    parser.add_argument("--patience", type=positive_count, help="epochs without a better one (default: 8)")
    parser.add_argument("--batch-size", type=positive_count, help="default: 32; of detectors 4 or 16")
    parser.add_argument("--learning-rate", type=positive, help="the highest (default: 0.001; of detectors their own)")
    parser.add_argument("--weight-decay", type=not_negative, help="default: 0.02")
    parser.add_argument("--label-smoothing", type=not_negative, help="of a classifier (default: 0.05)")
    parser.add_argument("--augment", choices=("none", "light", "standard"), help="random changes (default: standard)")
    parser.add_argument(
        "--no-flip",
        dest="flip",
        action="store_const",
        const=False,
        help="left and right matter, as in texts",
    )
    parser.add_argument(
        "--no-average", dest="average", action="store_const", const=False, help="no average of the weights (EMA)"
    )
    parser.add_argument("--amp", choices=("auto", "on", "off"), help="16-bit arithmetic; auto: on GPUs (default)")
    parser.add_argument("--search", type=positive_count, metavar="N", default=0, help="try N settings before")
    parser.add_argument("--seed", type=int, help="default: 0")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: cuda where there is a GPU, else cpu")
    parser.add_argument("--resume", action="store_true", help="go on with the training in the folder")
    parser.add_argument("--force", action="store_true", help="begin anew where the folder holds a training")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    return parser.parse_args()


if __name__ == "__main__":
    run(main)
