"""Pack a verified export folder and handlers/ into model_store/<name>.mar.

    python scripts/package_model.py exports/resnet50/openvino-bf16

The folder must have a verification.json that passed, of the artifact as it is.
"""

from pathlib import Path

from mar_tools.command_line import HANDLERS, MODEL_STORE, new_parser, run


def main() -> None:
    parser = new_parser(__doc__)
    parser.add_argument("export", type=Path, help="a folder that verify_model.py passed")
    parser.add_argument("--model-store", type=Path, metavar="FOLDER", default=MODEL_STORE, help="for the archive")
    arguments = parser.parse_args()
    from mar_tools.building.packing import build_archive  # after the options: it needs PyTorch

    print(build_archive(arguments.export, HANDLERS, arguments.model_store))


if __name__ == "__main__":
    run(main)
