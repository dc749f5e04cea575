"""Write weights in every form that training programs leave them in, and read each as a build does.

    python lab/read_checkpoints.py              # a minute or two
    python lab/read_checkpoints.py --output /tmp/checkpoints.json

Writes lab/results/checkpoints.json and docs/evidence/checkpoints.md. Needs requirements/lab.txt.
"""

import runpy
from datetime import date
from pathlib import Path

if __name__ == "__main__":  # outside the environment, this names the command that helps
    runpy.run_path(str(Path(__file__).parents[1] / "scripts/mar_tools/__init__.py"))

from mar_tools.command_line import ROOT, new_parser, run
from mar_tools.machine import package_versions

OUTPUT = ROOT / "lab" / "results" / "checkpoints.json"
PACKAGES = ("torch", "torchvision", "timm", "transformers", "safetensors")


def main() -> None:
    parser = new_parser(__doc__)
    parser.add_argument("--output", type=Path, default=OUTPUT, help="the json; the page lies beside it")
    arguments = parser.parse_args()
    from lab.checkpoints.reading import CheckpointResults, read_forms, write_results  # after the options: need PyTorch
    from lab.pages.rendering import write_page

    results = CheckpointResults(date=date.today().isoformat(), versions=package_versions(PACKAGES), rows=read_forms())
    write_results(results, arguments.output)
    print(write_page("checkpoints", arguments.output))


if __name__ == "__main__":
    run(main)
