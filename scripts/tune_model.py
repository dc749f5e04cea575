"""Find the workers, threads, batch size and batch delay that serve a model the fastest within a latency.

    python scripts/tune_model.py resnet50 --p99-ms 100
    python scripts/tune_model.py resnet50 --p99-ms 50 --budget-min 20 --images my_photos/ --apply
    python scripts/tune_model.py resnet50 --p99-ms 100 --exhaustive --json all_settings.json
    python scripts/tune_model.py resnet50 --by-rule

Each trial serves the archive of the model store from a TorchServe of its own, on free ports, and sends it requests at
random times: the highest rate at which 99 of 100 requests are answered within --p99-ms counts. The best settings are
then measured in turns with those of config.properties, and written there if they are better; the evidence goes to
tuning/MODEL.json beside it. A search that was interrupted, or needs more time, goes on when it is started again.
Stop other work on the machine first, a loaded server too: it takes the cores that the trials need. On GPUs, one worker
shows first what it takes of the memory, and settings that want more than three quarters of it are not tried.

--by-rule measures nothing: it names a model in config.properties, where it is not yet, with what suits the machine, as
build_model.py does.
"""

import math
import time
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from mar_tools.command_line import ROOT, new_parser, positive, positive_count, run
from mar_tools.images import load_encoded_images
from mar_tools.terminal import (
    AnnounceStep,
    Table,
    escape,
    new_table,
    number_column,
    print_tables,
    show_steps,
    show_work,
)
from vision_serving.cores import usable_cores
from vision_serving.errors import ConfigError

if TYPE_CHECKING:  # these import PyTorch, which --help needs not
    from mar_tools.tuning.probe import Goal
    from mar_tools.tuning.search import Search
    from mar_tools.tuning.space import Settings
    from mar_tools.tuning.tuner import Decision, Tuner

IMAGES = 100
SHOWN = 8
SEARCH_SHARE = 0.8  # of the budget; the rest is for the comparison at the end


def main() -> None:
    given = parse_arguments()
    if given.by_rule:
        name_by_rule(given)
        return
    from mar_tools.load_testing.answers import expect_answers
    from mar_tools.load_testing.images import load_test_images
    from mar_tools.load_testing.targets import prepare_requests
    from mar_tools.serving.server import Server
    from mar_tools.tuning import deployment
    from mar_tools.tuning.gpu_memory import measure_gpu_memory
    from mar_tools.tuning.probe import Goal
    from mar_tools.tuning.search import Search
    from mar_tools.tuning.space import new_space
    from mar_tools.tuning.tuner import Tuner

    server = Server(given.config)
    candidate = deployment.find_candidate(given.model, given.version, server)
    if given.apply:
        deployment.require_applicable(server, candidate)
    current = deployment.current_settings(candidate)
    goal = Goal(given.p99_ms, given.trial_s)
    with show_work(f"{candidate.name}: computing the expected answers"):
        images = load_test_images(IMAGES) if given.images is None else load_encoded_images(given.images, IMAGES)
        requests = prepare_requests(images, expected=expect_answers(candidate.archive, images))
    memory = None
    if candidate.gpus:
        with show_work(f"{candidate.name}: measuring the GPU's memory"):
            memory = measure_gpu_memory(candidate.archive, images)
    tuner = Tuner(candidate, requests, goal, memory)
    space = new_space(usable_cores(), candidate.gpus, goal.p99_ms, current, given.batch_sizes, given.delays_ms)
    evidence = given.json or given.config.resolve().parent / "tuning" / f"{candidate.name}.json"
    key = ("exhaustive" if given.exhaustive else "search", usable_cores(), *tuner.key())
    search = Search.open(evidence.with_suffix(".journal"), space, key)
    with show_steps(candidate.name, "setting" if given.exhaustive else "minute") as announce:
        decision = tune(tuner, search, current, given, announce)
    write_evidence(evidence, tuner, search, decision, images)
    print_tables(attempt_table(search, current))
    print(f"evidence: {evidence}")
    if decision is None:
        require_some_rate(search, goal)
        print(f"{given.config.name} stays as it is: nothing was better for long")
        return
    print_decision(decision, current, goal)
    if given.exhaustive:
        return
    deployment.write_settings(given.config, candidate, decision.chosen.settings)
    print(f"written to {given.config.name}; it holds after a restart, or with --apply")
    if given.apply:
        deployment.apply_settings(server, candidate, decision.chosen.settings)
        print(f"the running server serves {candidate.name} with {decision.chosen.settings}")


def parse_arguments() -> Namespace:
    parser = new_parser(__doc__)
    parser.add_argument("model", help="its name in the model store")
    goal = parser.add_mutually_exclusive_group(required=True)
    goal.add_argument("--p99-ms", type=positive, help="99 of 100 requests are to be answered within")
    goal.add_argument("--by-rule", action="store_true", help="measure nothing, write what suits the machine")
    parser.add_argument("--budget-min", type=positive, default=10.0, help="about how long settings are searched for")
    parser.add_argument("--version", help="of the model, where the store has several")
    parser.add_argument("--images", type=Path, help="a folder; default: cuts of examples/photographs, 640 x 427")
    parser.add_argument("--trial-s", type=positive, default=5.0, help="how long a load of a trial lasts")
    parser.add_argument(
        "--batch-sizes", type=positive_count, nargs="+", metavar="N", help="to choose from; default: 1, 2, 4, ..."
    )
    parser.add_argument(
        "--delays-ms", type=positive_count, nargs="+", metavar="MS", help="to choose from; default: 1, 2, 5, ..."
    )
    parser.add_argument("--exhaustive", action="store_true", help="try everything, however long; write no settings")
    parser.add_argument("--apply", action="store_true", help="to the running server too")
    parser.add_argument("--json", type=Path, metavar="FILE", help="the evidence; default: tuning/MODEL.json")
    parser.add_argument("--config", type=Path, default=ROOT / "config.properties", help="the server's settings")
    return parser.parse_args()


def name_by_rule(given: Namespace) -> None:
    from mar_tools.serving.server import Server
    from mar_tools.tuning import deployment

    candidate = deployment.find_candidate(given.model, given.version, Server(given.config))
    settings = deployment.write_settings_by_rule(given.config, candidate.archive)
    if settings is None:
        held = f"{deployment.current_settings(candidate)}, as before"
        print(f"{given.config.name} names {candidate.name} {candidate.version} already: {held}")
        return
    print(f"{given.config.name}: {candidate.name} with {settings}; it holds after a restart")


def tune(
    tuner: "Tuner", search: "Search", current: "Settings", given: Namespace, announce_step: AnnounceStep
) -> "Decision | None":
    """Search and decide, and tell how much of the budget, or of all settings, is done."""
    from mar_tools.tuning.space import first_guesses

    everything = search.space.settings()
    total = len(everything) if given.exhaustive else math.ceil(given.budget_min)
    started = time.monotonic()

    def announce(step: str) -> None:
        done = len(search.attempts) if given.exhaustive else int((time.monotonic() - started) / 60)
        found = "" if search.best is None else f"; best so far {search.best.rate:.4g}/s"
        announce_step(f"{step}{found}", done, max(total, done + 1))

    if given.exhaustive:  # none is spared for being worse than another
        search.run(everything, lambda settings, to_beat: tuner.evaluate(settings, 0.0), float("inf"), announce)
    else:
        until = started + SEARCH_SHARE * 60 * given.budget_min
        search.run(first_guesses(search.space, current), tuner.evaluate, until, announce)
    return tuner.decide(search, current, announce)


def attempt_table(search: "Search", current: "Settings") -> Table:
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
    path: Path, tuner: "Tuner", search: "Search", decision: "Decision | None", images: Sequence[bytes]
) -> None:
    import orjson

    from mar_tools.load_testing.images import summarise_images
    from mar_tools.load_testing.reporting import describe_run

    document = describe_run(
        model=tuner.candidate.name,
        version=tuner.candidate.version,
        p99_ms=tuner.goal.p99_ms,
        trial_s=tuner.goal.trial_s,
        gpu_memory_mib=None if tuner.memory is None else asdict(tuner.memory),
        images=summarise_images(images),
        decision=None if decision is None else decision.model_dump(mode="json"),
        trials=[attempt.model_dump(mode="json") for attempt in search.attempts.values()],
        seconds=round(sum(attempt.seconds for attempt in search.attempts.values()), 1),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(orjson.dumps(document, option=orjson.OPT_INDENT_2))


def require_some_rate(search: "Search", goal: "Goal") -> None:
    """Raises ConfigError where nothing kept the latency at any rate."""
    attempts = list(search.attempts.values())
    if any(attempt.rate for attempt in attempts):
        return
    problems = [attempt.problem for attempt in attempts if attempt.problem]
    if len(problems) == len(attempts):
        raise ConfigError(f"the model could not be served in any of {len(attempts)} trials; the first: {problems[0]}")
    slow = f"no settings kept 99 of 100 requests within {goal.p99_ms:g} ms, or some requests failed"
    raise ConfigError(f"{slow}; allow more, build a faster model, or see what benchmark_model.py says of these images")


def print_decision(decision: "Decision", current: "Settings", goal: "Goal") -> None:
    chosen, former = decision.chosen, decision.former
    held = "none" if not decision.former_requests_per_s else f"{decision.former_requests_per_s:.4g} requests/s"
    print(f"best: {chosen.settings}")
    print(f"  {decision.requests_per_s:.4g} requests/s: p50 {chosen.p50_ms:.4g} ms, p99 {chosen.p99_ms:.4g} ms")
    print(f"now:  {current}")
    print(f"  the highest rate within {goal.p99_ms:g} ms: {held}")
    if former is not None:
        print(f"  at the same rate: p50 {former.p50_ms:.4g} ms, p99 {former.p99_ms:.4g} ms, {former.failed} failed")


if __name__ == "__main__":
    run(main)
