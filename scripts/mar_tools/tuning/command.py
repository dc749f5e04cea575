"""What scripts/tune_model.py does."""

import math
import time
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
from rich.markup import escape
from rich.table import Table

from mar_tools.command_line import Announce
from mar_tools.images import load_encoded_images
from mar_tools.load_testing.answers import expect_answers
from mar_tools.load_testing.images import load_test_images, summarise_images
from mar_tools.load_testing.reporting import describe_run
from mar_tools.load_testing.targets import prepare_requests
from mar_tools.serving.server import Server
from mar_tools.terminal import AnnounceStep, new_table, number_column, print_tables, show_steps, show_work
from mar_tools.tuning.deployment import (
    TunedModel,
    apply_settings,
    current_settings,
    find_candidate,
    require_applicable,
    write_settings,
)
from mar_tools.tuning.search import Attempt, Search
from mar_tools.tuning.space import Settings, first_guesses, new_space
from mar_tools.tuning.tuner import Decision, Goal, Tuner
from vision_serving.cores import usable_cores
from vision_serving.errors import ConfigError

IMAGES = 100
SHOWN = 8
SEARCH_SHARE = 0.8  # of the budget; the rest is for the comparison at the end
LOG_SETTINGS = "log4j2.xml"


def tune_model(arguments: Namespace) -> None:
    """Search, decide, write the evidence and the settings."""
    server = Server(arguments.config)
    candidate = find_candidate(arguments.model, arguments.version, server)
    if arguments.apply:
        require_applicable(server, candidate)
    current = current_settings(candidate)
    goal = Goal(arguments.p99_ms, arguments.trial_s)
    log_settings = arguments.config.resolve().parent / LOG_SETTINGS
    with show_work(f"{candidate.name}: computing the expected answers"):
        images = load_test_images(IMAGES) if arguments.images is None else load_encoded_images(arguments.images, IMAGES)
        requests = prepare_requests(images, expected=expect_answers(candidate.archive, images))
    tuner = Tuner(candidate, requests, goal, log_settings if log_settings.is_file() else None)
    choices = (arguments.batch_sizes, arguments.delays_ms)
    space = new_space(usable_cores(), candidate.gpus, goal.p99_ms, current, *choices)
    evidence = arguments.json or arguments.config.resolve().parent / "tuning" / f"{candidate.name}.json"
    mode = "exhaustive" if arguments.exhaustive else "search"
    key = (mode, usable_cores(), *tuner.key())
    search = Search.open(evidence.with_suffix(".journal"), space, key)
    with show_steps(candidate.name, "setting" if arguments.exhaustive else "minute") as announce:
        decision = tune(tuner, search, current, arguments, announce)
    write_evidence(evidence, candidate, search, decision, goal, images)
    print_tables(attempt_table(search, current))
    print(f"evidence: {evidence}")
    if decision is None:
        require_some_rate(search, goal)
        print(f"{arguments.config.name} stays as it is: nothing was better for long")
        return
    print_decision(decision, current, goal)
    if arguments.exhaustive:
        return
    chosen = decision.chosen.settings
    write_settings(arguments.config, candidate, chosen)
    print(f"written to {arguments.config.name}; it holds after a restart, or with --apply")
    if arguments.apply:
        apply_settings(server, candidate, chosen)
        print(f"the running server serves {candidate.name} with {chosen}")


def tune(
    tuner: Tuner, search: Search, current: Settings, arguments: Namespace, announce_step: AnnounceStep
) -> Decision | None:
    """Search and decide, and tell how much of the budget, or of all settings, is done."""
    everything = search.space.settings()
    total = len(everything) if arguments.exhaustive else math.ceil(arguments.budget_min)
    started = time.monotonic()

    def announce(step: str) -> None:
        done = len(search.attempts) if arguments.exhaustive else int((time.monotonic() - started) / 60)
        best = search.best
        found = "" if best is None else f"; best so far {best.rate:.4g}/s"
        announce_step(f"{step}{found}", done, max(total, done + 1))

    if arguments.exhaustive:
        try_everything(tuner, search, everything, announce)
    else:
        until = started + SEARCH_SHARE * 60 * arguments.budget_min
        search.run(first_guesses(search.space, current), tuner.evaluate, until, announce)
    return tuner.decide(search, current, announce)


def try_everything(tuner: Tuner, search: Search, everything: Sequence[Settings], announce: Announce) -> None:
    """Try all settings, none spared for being worse than another."""

    def evaluate(settings: Settings, to_beat: float) -> Attempt:
        return tuner.evaluate(settings, to_beat=0.0)

    search.run(everything, evaluate, float("inf"), announce)


def attempt_table(search: Search, current: Settings) -> Table:
    """Return the best, and the settings of now."""
    figures = map(number_column, ("requests\n/s", "p50\nms", "p99\nms", "closed\nloop/s"))
    table = new_table("\nsettings", *figures, title=f"{len(search.attempts)} trials")
    ranked = sorted(search.attempts.values(), key=lambda attempt: attempt.rate or 0.0, reverse=True)
    shown = ranked[:SHOWN]
    shown += [attempt for attempt in ranked[SHOWN:] if attempt.settings == current]
    for attempt in shown:
        measured = (attempt.rate, attempt.p50_ms, attempt.p99_ms, attempt.capacity)
        cells = ["" if value is None else f"{value:.4g}" for value in measured]
        if attempt.rate is None and not attempt.problem:
            cells[0] = f"< {attempt.to_beat:.4g}"
        named = f"{attempt.settings}{' (now)' * (attempt.settings == current)}"
        table.add_row(f"{named}\n{escape(attempt.problem)}" if attempt.problem else named, *cells)
    return table


def write_evidence(
    path: Path, candidate: TunedModel, search: Search, decision: Decision | None, goal: Goal, images: Sequence[bytes]
) -> None:
    document: dict[str, Any] = describe_run(
        model=candidate.name,
        version=candidate.version,
        p99_ms=goal.p99_ms,
        trial_s=goal.trial_s,
        images=summarise_images(images),
        decision=None if decision is None else decision.model_dump(mode="json"),
        trials=[attempt.model_dump(mode="json") for attempt in search.attempts.values()],
        seconds=round(sum(attempt.seconds for attempt in search.attempts.values()), 1),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(orjson.dumps(document, option=orjson.OPT_INDENT_2))


def require_some_rate(search: Search, goal: Goal) -> None:
    """Raises ConfigError where nothing kept the latency at any rate."""
    attempts = list(search.attempts.values())
    if any(attempt.rate for attempt in attempts):
        return
    problems = [attempt.problem for attempt in attempts if attempt.problem]
    if len(problems) == len(attempts):
        raise ConfigError(f"the model could not be served in any of {len(attempts)} trials; the first: {problems[0]}")
    slow = f"no settings kept 99 of 100 requests within {goal.p99_ms:g} ms, or some requests failed"
    raise ConfigError(f"{slow}; allow more, build a faster model, or see what benchmark_model.py says of these images")


def print_decision(decision: Decision, current: Settings, goal: Goal) -> None:
    chosen, former = decision.chosen, decision.former
    held = "none" if not decision.former_requests_per_s else f"{decision.former_requests_per_s:.4g} requests/s"
    print(f"best: {chosen.settings}")
    print(f"  {decision.requests_per_s:.4g} requests/s: p50 {chosen.p50_ms:.4g} ms, p99 {chosen.p99_ms:.4g} ms")
    print(f"now:  {current}")
    print(f"  the highest rate within {goal.p99_ms:g} ms: {held}")
    if former is not None:
        print(f"  at the same rate: p50 {former.p50_ms:.4g} ms, p99 {former.p99_ms:.4g} ms, {former.failed} failed")
