"""What lab/confirm_tuning.py does."""

from argparse import Namespace
from typing import Any

import orjson
from rich.console import Console

from mar_tools.load_testing.answers import expect_answers
from mar_tools.load_testing.images import load_test_images
from mar_tools.load_testing.reporting import describe_run
from mar_tools.load_testing.targets import prepare_requests
from mar_tools.serving.server import Server
from mar_tools.tuning.deployment import find_candidate
from mar_tools.tuning.probe import Goal
from mar_tools.tuning.space import Settings
from mar_tools.tuning.tuner import Tuner
from vision_serving.errors import ConfigError


def confirm_tuning(arguments: Namespace) -> None:
    """Measure the candidates in turns; write and print their rates."""
    everything, search = (orjson.loads(path.read_bytes()) for path in (arguments.exhaustive, arguments.search))
    if search["decision"] is None:
        raise ConfigError(
            f"{arguments.search}: the search found nothing better than the settings of before; try another bound"
        )
    found = Settings(**search["decision"]["chosen"]["settings"])
    candidates = list(dict.fromkeys([found, *best_settings(everything)]))
    tuner = new_tuner(arguments, everything["model"])
    rates: dict[Settings, list[float]] = {settings: [] for settings in candidates}
    for number in range(arguments.rounds):
        for settings in candidates:
            Console(stderr=True).print(f"round {number + 1} of {arguments.rounds}: {settings}", highlight=False)
            attempt = tuner.evaluate(settings, to_beat=0.0)
            if not attempt.rate:
                raise ConfigError(f"{settings}: {attempt.problem or 'no rate keeps the latency'}")
            rates[settings].append(attempt.rate)
    document = describe_run(
        model=everything["model"],
        p99_ms=arguments.p99_ms,
        load_s=arguments.load_s,
        candidates=[
            {"settings": settings, "found": settings == found, "rates": kept} for settings, kept in rates.items()
        ],
    )
    arguments.json.write_bytes(orjson.dumps(document, option=orjson.OPT_INDENT_2))
    for settings, kept in rates.items():
        print(f"{settings}{' (found)' * (settings == found)}: {', '.join(f'{rate:.4g}' for rate in kept)} requests/s")


IMAGES = 100
BEST = 2  # of all settings


def best_settings(everything: dict[str, Any]) -> list[Settings]:
    ranked = sorted(everything["trials"], key=lambda trial: trial["rate"] or 0.0, reverse=True)
    return [Settings(**trial["settings"]) for trial in ranked[:BEST]]


def new_tuner(arguments: Namespace, model: str) -> Tuner:
    candidate = find_candidate(model, None, Server(arguments.config))
    images = load_test_images(IMAGES)
    requests = prepare_requests(images, expected=expect_answers(candidate.archive, images))
    return Tuner(candidate, requests, Goal(arguments.p99_ms, arguments.load_s))
