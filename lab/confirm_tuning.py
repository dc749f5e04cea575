"""Is what the tuner's search found as good as the best of all settings? Both again, in turns, with longer loads.

    python lab/confirm_tuning.py --config lab/config.properties --p99-ms 60 \
        --exhaustive tuning-exhaustive.json --search tuning-search.json --json tuning-confirmed.json

A trial of the tuner is short, so of two settings that are as good as each other either may have had the luck. Here the
one that the search wrote into the settings and the best of all that were tried are tried anew in every round.
"""

import runpy
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if __name__ == "__main__":  # outside the environment, this names the command that helps
    runpy.run_path(str(Path(__file__).parents[1] / "scripts/mar_tools/__init__.py"))

import orjson
from rich.console import Console

from mar_tools.command_line import ROOT, new_parser, run
from mar_tools.tuning.space import Settings
from vision_serving.errors import ConfigError

if TYPE_CHECKING:  # it imports PyTorch, which --help needs not
    from mar_tools.tuning.tuner import Tuner

IMAGES = 100
BEST = 2  # of all settings


def main() -> None:
    arguments = parse_arguments()
    everything, search = (orjson.loads(path.read_bytes()) for path in (arguments.exhaustive, arguments.search))
    if search["decision"] is None:
        raise ConfigError(
            f"{arguments.search}: the search found nothing better than the settings of before; try another bound"
        )
    found = Settings(**search["decision"]["chosen"]["settings"])
    rates = measure_rates(list(dict.fromkeys([found, *best_settings(everything)])), arguments, everything["model"])
    write_rates(rates, found, arguments, everything["model"])
    for settings, kept in rates.items():
        print(f"{settings}{' (found)' * (settings == found)}: {', '.join(f'{rate:.4g}' for rate in kept)} requests/s")


def parse_arguments() -> Namespace:
    parser = new_parser(__doc__)
    parser.add_argument("--config", type=Path, default=ROOT / "config.properties")
    parser.add_argument("--p99-ms", type=float, required=True, help="that of the search")
    parser.add_argument("--exhaustive", type=Path, required=True, help="evidence of tune_model.py --exhaustive")
    parser.add_argument("--search", type=Path, required=True, help="evidence of the search")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--load-s", type=float, default=4.0, help="how long each load lasts")
    parser.add_argument("--json", type=Path, required=True)
    return parser.parse_args()


def best_settings(everything: dict[str, Any]) -> list[Settings]:
    ranked = sorted(everything["trials"], key=lambda trial: trial["rate"] or 0.0, reverse=True)
    return [Settings(**trial["settings"]) for trial in ranked[:BEST]]


def measure_rates(candidates: list[Settings], arguments: Namespace, model: str) -> dict[Settings, list[float]]:
    """Measure the candidates in turns. Raises ConfigError for one that keeps the latency at no rate."""
    tuner = new_tuner(arguments, model)
    rates: dict[Settings, list[float]] = {settings: [] for settings in candidates}
    for number in range(arguments.rounds):
        for settings in candidates:
            Console(stderr=True).print(f"round {number + 1} of {arguments.rounds}: {settings}", highlight=False)
            attempt = tuner.evaluate(settings, to_beat=0.0)
            if not attempt.rate:
                raise ConfigError(f"{settings}: {attempt.problem or 'no rate keeps the latency'}")
            rates[settings].append(attempt.rate)
    return rates


def new_tuner(arguments: Namespace, model: str) -> "Tuner":
    from mar_tools.load_testing.answers import expect_answers
    from mar_tools.load_testing.images import load_test_images
    from mar_tools.load_testing.targets import prepare_requests
    from mar_tools.serving.server import Server
    from mar_tools.tuning.deployment import find_candidate
    from mar_tools.tuning.probe import Goal
    from mar_tools.tuning.tuner import Tuner

    candidate = find_candidate(model, None, Server(arguments.config))
    images = load_test_images(IMAGES)
    requests = prepare_requests(images, expected=expect_answers(candidate.archive, images))
    return Tuner(candidate, requests, Goal(arguments.p99_ms, arguments.load_s))


def write_rates(rates: dict[Settings, list[float]], found: Settings, arguments: Namespace, model: str) -> None:
    from mar_tools.load_testing.reporting import describe_run

    candidates = [{"settings": settings, "found": settings == found, "rates": kept} for settings, kept in rates.items()]
    document = describe_run(model=model, p99_ms=arguments.p99_ms, load_s=arguments.load_s, candidates=candidates)
    arguments.json.write_bytes(orjson.dumps(document, option=orjson.OPT_INDENT_2))


if __name__ == "__main__":
    run(main)
