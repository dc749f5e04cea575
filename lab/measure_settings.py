"""One archive under different settings, in turns with P: what a server gives that nobody has tuned.

    python lab/measure_settings.py lab/model_store/resnet50.mar --json lab/results/performance/settings.json
    python lab/measure_settings.py lab/model_store/resnet50.mar --settings 3x1,8,5 2x1,4,1 --json more.json

Settings are workers x threads, batch size, delay in ms. Without --settings they are: what TorchServe does with a model
that config.properties does not name, with one worker and with two; what build_model.py writes there; what
lab/config.properties says, which the other measurements use; and the same with one worker more than cores. All servers
stay up, and only one is asked at a time.
"""

import re
import runpy
from argparse import ArgumentTypeError, Namespace
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

if __name__ == "__main__":  # outside the environment, this names the command that helps
    runpy.run_path(str(Path(__file__).parents[1] / "scripts/mar_tools/__init__.py"))

from mar_tools.command_line import ROOT, new_parser, positive, positive_count, run
from mar_tools.terminal import show_work
from vision_serving.cores import usable_cores

if TYPE_CHECKING:
    from mar_tools.tuning.space import Settings

P_BATCH = 8


def main() -> None:
    given = parse_arguments()
    from lab.testbed.settings import usual_settings  # these import PyTorch, which --help needs not
    from mar_tools.load_testing.answers import expect_answers
    from mar_tools.load_testing.images import load_test_images
    from mar_tools.load_testing.reporting import report, run_all
    from mar_tools.load_testing.targets import prepare_requests
    from mar_tools.load_testing.trials import closed_trial, in_process_trial
    from mar_tools.tuning.deployment import TunedModel, serve_trial

    candidate = TunedModel.read(given.archive, given.config)
    chosen = dict(given.settings) or usual_settings(candidate)
    images = load_test_images()
    requests = prepare_requests(images, expected=expect_answers(given.archive, images))
    trials = [in_process_trial(candidate.name, given.archive, images, usable_cores(), 1, P_BATCH, given.round_s)]
    with ExitStack() as stack:
        for name, settings in chosen.items():
            with show_work(f"starting a server: {name}", silent_elsewhere=True):
                target = stack.enter_context(serve_trial(candidate, settings))
            trials.append(closed_trial(replace(target, name=name), requests, given.connections, given.round_s))
        results = run_all(trials, given.rounds)
    settings = {name: asdict(entry) for name, entry in chosen.items()}
    first = Namespace(models=[next(iter(chosen))], json=given.json, plots=None)
    report(results, {"model": candidate.name, "settings": settings}, first, [])


def parse_arguments() -> Namespace:
    parser = new_parser(__doc__)
    parser.add_argument("archive", type=Path)
    parser.add_argument("--settings", type=_read_settings, nargs="+", default=[], metavar="WxT,B,MS")
    parser.add_argument("--config", type=Path, default=ROOT / "lab" / "config.properties", help="of the usual settings")
    parser.add_argument("--connections", type=positive_count, default=16)
    parser.add_argument("--rounds", type=positive_count, default=5)
    parser.add_argument("--round-s", type=positive, default=5.0)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results")
    return parser.parse_args()


def _read_settings(text: str) -> "tuple[str, Settings]":
    from mar_tools.tuning.space import Settings

    found = re.fullmatch(r"(\d+)x(\d+),(\d+),(\d+)", text)
    if found is None:
        raise ArgumentTypeError(f"expected workers x threads, batch size, delay in ms, such as 2x1,8,5, got {text!r}")
    settings = Settings(*map(int, found.groups()))
    return str(settings), settings


if __name__ == "__main__":
    run(main)
