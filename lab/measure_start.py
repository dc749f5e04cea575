"""From `serve_models.py start` until the first right answer, in turns with TorchServe and its stock handler.

    python lab/measure_start.py resnet50 --config lab/config.properties \
        --export lab/exports/resnet50/openvino-int8 --rounds 5 --json start.json
"""

from argparse import Namespace
from pathlib import Path

from mar_tools.command_line import ROOT, new_parser, run


def main() -> None:
    arguments = parse_arguments()
    from lab.commands.measure_start import measure_start  # after the options: it imports PyTorch

    measure_start(arguments)


def parse_arguments() -> Namespace:
    parser = new_parser(__doc__)
    parser.add_argument("model", help="its name in the settings' model store")
    parser.add_argument("--export", type=Path, required=True, help="of the same model; eager fp32 lies beside it")
    parser.add_argument("--config", type=Path, default=ROOT / "config.properties")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, required=True)
    return parser.parse_args()


if __name__ == "__main__":
    run(main)
