"""Disk, memory and start of what requirements.txt brings, and of what requirements/serve.txt brings with CPU builds.

    python lab/measure_install.py model_store/digits.mar --full .venv/bin/python --serving ../serving/bin/python \
        --json lab/results/install.json

Both environments hold this project. They take turns: each round serves the archive once with either.
"""

import runpy
import statistics
import subprocess
from argparse import Namespace
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # outside the environment, this names the command that helps
    runpy.run_path(str(Path(__file__).parents[1] / "scripts/mar_tools/__init__.py"))

import orjson

from mar_tools.command_line import ROOT, new_parser, positive_count, run
from mar_tools.terminal import print_line

FILES = {"full": "requirements.txt", "serving": "requirements/serve.txt"}
OF_A_START = ("start_s", "worker_uss_mib", "worker_anonymous_mib", "worker_rss_mib", "frontend_rss_mib")
TIMEOUT_S = 400.0


def main() -> None:
    arguments = parse_arguments()
    from mar_tools.load_testing.reporting import describe_run

    rounds = []
    for number in range(arguments.rounds):
        print_line(f"round {number + 1} of {arguments.rounds}")
        rounds.append({name: measure(getattr(arguments, name), FILES[name], arguments.archive) for name in FILES})
    results = {name: summarise([entry[name] for entry in rounds]) for name in FILES}
    document = describe_run(rounds=arguments.rounds, environments=results)
    arguments.json.write_bytes(orjson.dumps(document, option=orjson.OPT_INDENT_2) + b"\n")
    for name, found in results.items():
        print(f"{name}: " + ", ".join(f"{key} {found[key]:,}" for key in ("disk_mib", *OF_A_START)))


def parse_arguments() -> Namespace:
    parser = new_parser(__doc__)
    parser.add_argument("archive", type=Path)
    parser.add_argument("--full", type=Path, required=True, metavar="PYTHON", help="of requirements.txt")
    parser.add_argument("--serving", type=Path, required=True, metavar="PYTHON", help="of requirements/serve.txt")
    parser.add_argument("--rounds", type=positive_count, default=5)
    parser.add_argument("--json", type=Path, required=True)
    return parser.parse_args()


def measure(python: Path, file: str, archive: Path) -> dict[str, Any]:
    # Not resolved: the link in an environment is what tells Python where its packages are.
    command = [str(python.absolute()), "lab/testbed/installing.py", file, str(archive.resolve())]
    finished = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, timeout=TIMEOUT_S, check=True)
    found: dict[str, Any] = orjson.loads(finished.stdout)
    return found


def summarise(found: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the median of what differs from start to start."""
    return found[0] | {key: round(statistics.median(each[key] for each in found), 1) for key in OF_A_START}


if __name__ == "__main__":
    run(main)
