"""Compare an export with the eager fp32 export beside it, on images, and write its verification.json.

    python scripts/verify_model.py exports/resnet50/openvino-bf16
    python scripts/verify_model.py exports/resnet50/openvino-bf16 --json

Exit status 1 when the export breaks a bound.
"""

from pathlib import Path

import orjson

from mar_tools.command_line import new_parser, run
from mar_tools.verification import verify_export
from vision_serving.errors import ConfigError


def main() -> None:
    parser = new_parser(__doc__)
    parser.add_argument("export", type=Path, help="a folder that export_model.py wrote")
    parser.add_argument("--json", action="store_true", help="print the whole report")
    arguments = parser.parse_args()
    report = verify_export(arguments.export)
    if arguments.json:
        print(orjson.dumps(report, option=orjson.OPT_INDENT_2).decode())
    else:
        measured = ", ".join(f"{name} {value:g}" for name, value in report["measured"].items())
        print(f"{'verified' if report['passed'] else 'rejected'}: {measured}")
    if not report["passed"]:
        raise ConfigError(f"{arguments.export}: {'; '.join(report['failures'])}")


if __name__ == "__main__":
    run(main)
