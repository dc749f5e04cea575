"""Check that the server can predict: exit status 0, or 1 with the models that cannot, and why.

    python scripts/health_probe.py
    python scripts/health_probe.py digits --timeout-s 3
    python scripts/health_probe.py --json

Every worker has to be ready and to give the golden prediction of its archive. With names, the command checks these
models alone. Containers use it as `HEALTHCHECK CMD python scripts/health_probe.py`. Kubernetes asks over HTTP instead.
"""

import time
from pathlib import Path

from mar_tools.command_line import ROOT, new_parser, positive, print_json, run
from mar_tools.serving.health import check_server
from mar_tools.serving.state_option import add_state_option
from mar_tools.serving.torchserve_api import ServerError


def main() -> None:
    parser = new_parser(__doc__)
    parser.add_argument("models", nargs="*", metavar="MODEL", help="default: all, and what was left out")
    parser.add_argument(
        "--config", type=Path, metavar="FILE", default=ROOT / "config.properties", help="the server's settings"
    )
    add_state_option(parser)
    parser.add_argument("--timeout-s", type=positive, metavar="S", default=5.0, help="for all answers (default: 5)")
    parser.add_argument("--json", action="store_true", help="print the models with their workers and problems")
    arguments = parser.parse_args()
    found = check_server(arguments.config, time.monotonic() + arguments.timeout_s, arguments.models)
    bad = [model for model in found if not model.healthy]
    if arguments.json:
        print_json({"healthy": bool(found) and not bad, "models": [model.as_document() for model in found]})
    if not found:
        raise ServerError("the server has no models")
    if bad:
        raise ServerError("; ".join(map(str, bad)))
    if not arguments.json:
        print("\n".join(f"{model}, golden prediction {model.golden}" for model in found))


if __name__ == "__main__":
    run(main)
