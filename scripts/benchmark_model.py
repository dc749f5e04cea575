"""Load-test models that the running TorchServe serves: JPEG in, JSON out, every answer compared with the expected one.

    python scripts/benchmark_model.py resnet50
    python scripts/benchmark_model.py resnet50 --connections 1 2 4 8 16 --rates 50% 70% 85% --in-process
    python scripts/benchmark_model.py resnet50 resnet50_stock --connections 16 --json results.json --plots plots/
    python scripts/benchmark_model.py resnet50 --compare stock litserve mosec --connections 16 --rounds 5
    python scripts/benchmark_model.py --check-client

A closed loop (--connections) keeps each connection busy and shows throughput. An open loop (--rates, requests/s or a
share of the best closed loop) sends at random times and shows what users wait. --in-process adds P: the same archive,
threads and cores without a server. --compare starts other servers with the first model's artifact and our code, and as
their documentation shows them, with the eager network (lab/peers/servers). All of it takes turns; medians over the
rounds are printed.

The expected answers come from the archive in the model store, or from --export MODEL=FOLDER. CPU time and memory are
those of the whole server, whatever else it serves. The client shares the cores with the server: compare only what ran
in one run.
"""

from argparse import ArgumentTypeError, Namespace
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import orjson
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from lab.peers.client_check import start_trivial_server
from lab.peers.contest import Contestant, start_contestants
from lab.peers.peers import ServerSettings
from mar_tools.command_line import ROOT, new_parser, run
from mar_tools.images import load_encoded_images
from mar_tools.load_testing.closed_loop import choose_client
from mar_tools.load_testing.comparison import compare_results
from mar_tools.load_testing.http_client import require_aiohttp
from mar_tools.load_testing.images import load_test_images
from mar_tools.load_testing.load_tests import Rate, Result, best_rate, run_in_turns
from mar_tools.load_testing.reporting import describe_run, ratio_table, result_table, stage_table
from mar_tools.load_testing.served import ServedModel, find_served_models, prepare_checked_requests
from mar_tools.load_testing.targets import Request, prepare_requests
from mar_tools.load_testing.trials import Trial, closed_trial, in_process_trial, open_trial
from mar_tools.serving.server import Server
from vision_serving.errors import ConfigError, VisionServingError, how_to_install

IMAGES = 200
IMAGE_SIZE = (640, 427)


class LoadTestError(VisionServingError):
    """Some answers were wrong."""


def main() -> None:
    arguments = parse_arguments()
    if arguments.check_client or arguments.rates or arguments.client == "bundled":
        require_aiohttp()  # now, and not after minutes
    if arguments.check_client:
        results, document, unchecked = check_clients(arguments)
    else:
        results, document, unchecked = load_test(arguments)
    show(results, unchecked, arguments.models[:1])
    if arguments.json:
        document["results"] = [result.as_document() for result in results]
        arguments.json.write_bytes(orjson.dumps(document, option=orjson.OPT_INDENT_2))
    if arguments.plots:
        draw_plots(results, arguments.plots)
    refuse_wrong_answers(results)


def parse_arguments() -> Namespace:
    parser = new_parser(__doc__)
    parser.add_argument("models", nargs="*", metavar="MODEL")
    parser.add_argument(
        "--connections", type=_positive, nargs="*", default=[8], help="of closed loops, one after the other"
    )
    parser.add_argument("--rates", type=_rate, nargs="+", default=[], help="of open loops: requests/s, or 70%%")
    parser.add_argument("--rounds", type=_positive, default=3)
    parser.add_argument("--round-s", type=float, default=15.0, help="how long each load lasts, in each round")
    parser.add_argument("--in-process", type=_positive, nargs="*", metavar="BATCH", help="P too (default: as served)")
    parser.add_argument("--client", choices=("auto", "bundled", "wrk"), default="auto", help="of closed loops")
    parser.add_argument(
        "--export", type=_named_path, nargs="+", default=[], metavar="MODEL=PATH", help="expected answers"
    )
    parser.add_argument(
        "--compare", nargs="+", default=[], metavar="SERVER", help="other servers: stock, litserve, ..."
    )
    parser.add_argument("--images", type=Path, help="a folder; default: cuts of examples/photographs")
    parser.add_argument("--image-count", type=_positive, default=IMAGES, help="how many different ones")
    parser.add_argument("--image-size", type=_size, default=IMAGE_SIZE, metavar="WxH", help="of the cuts")
    parser.add_argument("--config", type=Path, default=ROOT / "config.properties", help="the server's settings")
    parser.add_argument("--check-client", action="store_true", help="how fast are the clients? Needs no server")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results")
    parser.add_argument("--plots", type=Path, metavar="FOLDER", help="draw the results as PNG and SVG")
    arguments = parser.parse_args()
    if bool(arguments.models) == arguments.check_client:
        parser.error("give the names of served models, or --check-client")
    if arguments.client == "auto":
        arguments.client = choose_client()
    return arguments


def load_test(arguments: Namespace) -> tuple[list[Result], dict[str, Any], list[str]]:
    """Results, the document without them, and the models whose answers could not be checked."""
    images = load_images(arguments)
    served = find_served_models(Server(arguments.config), arguments.models)
    exports = {model.target.name: model.archive for model in served} | dict(arguments.export)
    requests, unchecked = prepare_all(served, exports, images)
    trials = closed_trials(arguments, served, requests)
    if arguments.in_process is not None:
        ours = [model for model in served if model.target.name not in unchecked]
        trials += in_process_trials(arguments, ours, exports, images)
    with start_others(arguments, served[0], exports, images) as (contestants, refused):
        for connections in arguments.connections:
            trials += [entry.new_trial(connections, arguments.round_s, arguments.client) for entry in contestants]
        results = run_all(trials, arguments.rounds)
    results += run_all(open_trials(arguments, served, requests, results), arguments.rounds)
    document = describe_run(
        client=arguments.client,
        images={"count": len(images), "mean_bytes": sum(map(len, images)) // len(images)},
        models={model.target.name: model.as_document() for model in served},
        peers={contestant.target.name: contestant.as_document() for contestant in contestants},
        not_started=refused,
        not_checked=unchecked,
        ratios=[ratio.as_document() for ratio in compare_results(results, served[0].target.name)],
    )
    return results, document, unchecked


@contextmanager
def start_others(
    arguments: Namespace, model: ServedModel, exports: dict[str, Path | None], images: Sequence[bytes]
) -> Iterator[tuple[list[Contestant], dict[str, str]]]:
    """The servers of --compare, with the workers and batches of `model`. Raises ConfigError where it has no export."""
    if not arguments.compare:
        yield [], {}
        return
    export = exports[model.target.name]
    if export is None or not export.is_dir():
        raise ConfigError(f"--compare needs the export of {model.target.name}: --export {model.target.name}=FOLDER")
    own = ServerSettings(model.workers, model.threads.engine, model.batch_size, model.max_batch_delay_ms)
    console = Console(stderr=True)
    with ExitStack() as stack:
        with console.status("") as status:
            others = start_contestants(arguments.compare, export, images, own, status.update)
            contestants, refused = stack.enter_context(others)
        for name, reason in refused.items():
            console.print(f"{name} is left out: {reason}", highlight=False, markup=False)
        yield contestants, refused


def load_images(arguments: Namespace) -> list[bytes]:
    if arguments.images is not None:
        return load_encoded_images(arguments.images, arguments.image_count)
    return load_test_images(arguments.image_count, arguments.image_size)


def prepare_all(
    served: Sequence[ServedModel], exports: dict[str, Path | None], images: Sequence[bytes]
) -> tuple[dict[str, list[Request]], list[str]]:
    """The requests of each model, and the models whose answers cannot be checked, which are named on standard error."""
    console = Console(stderr=True)
    requests, unchecked = {}, []
    for model in served:
        name = model.target.name
        with console.status(f"{name}: computing the expected answers"):
            requests[name], reason = prepare_checked_requests(exports[name], images, model.threads)
        if reason:
            unchecked.append(name)
            console.print(f"{name}: answers are not checked: {reason}", highlight=False, markup=False)
    return requests, unchecked


def closed_trials(
    arguments: Namespace, served: Sequence[ServedModel], requests: dict[str, list[Request]]
) -> list[Trial]:
    return [
        closed_trial(model.target, requests[model.target.name], connections, arguments.round_s, arguments.client)
        for connections in arguments.connections
        for model in served
    ]


def open_trials(
    arguments: Namespace, served: Sequence[ServedModel], requests: dict[str, list[Request]], closed: Sequence[Result]
) -> list[Trial]:
    trials = []
    for rate in arguments.rates:
        for model in served:
            name = model.target.name
            amount = rate.of(best_rate(closed, name))
            trials.append(open_trial(model.target, requests[name], amount, arguments.round_s))
    return trials


def in_process_trials(
    arguments: Namespace, served: Sequence[ServedModel], exports: dict[str, Path | None], images: Sequence[bytes]
) -> list[Trial]:
    """As many processes and threads as the server has for each model. Raises ConfigError where there is no model."""
    if not served:
        raise ConfigError("--in-process needs an archive of ours; give --export MODEL=PATH")
    trials = []
    for model in served:
        name, export = model.target.name, exports[model.target.name]
        assert export is not None, "its answers were computed with it"
        for batch_size in arguments.in_process or [model.batch_size]:
            share = (model.workers, model.threads.engine, batch_size)
            trials.append(in_process_trial(name, export, images, *share, arguments.round_s))
    return trials


def check_clients(arguments: Namespace) -> tuple[list[Result], dict[str, Any], list[str]]:
    """The chosen client and the bundled one against a server that does next to nothing."""
    requests = prepare_requests(load_images(arguments))
    with start_trivial_server() as target:
        trials = [
            replace(closed_trial(target, requests, connections, arguments.round_s, client), target=f"{client} client")
            for connections in arguments.connections
            for client in dict.fromkeys(("bundled", arguments.client))
        ]
        results = run_all(trials, arguments.rounds)
    return results, describe_run(target=target.name), [trial.target for trial in trials]


def run_all(trials: Sequence[Trial], rounds: int) -> list[Result]:
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=len(trials) * rounds)

        def announce(step: str) -> None:
            progress.update(task, description=step, completed=next(done))

        done = count()
        return run_in_turns(trials, rounds, announce)


def show(results: Sequence[Result], unchecked: Sequence[str], baseline: Sequence[str]) -> None:
    console = Console()
    ratios = [ratio for name in baseline for ratio in compare_results(results, name)]
    for table in (result_table(results, unchecked), stage_table(results), ratio_table(ratios)):
        if table is not None:
            console.print(table)


def draw_plots(results: Sequence[Result], folder: Path) -> None:
    try:
        from mar_tools.load_testing.plots import plot_results
    except ModuleNotFoundError as error:
        raise ConfigError(f"--plots needs {how_to_install(error)}") from error
    for path in plot_results(results, folder):
        print(path)


def refuse_wrong_answers(results: Sequence[Result]) -> None:
    """Failures are a finding of a load test; wrong answers make it worthless. Raises LoadTestError."""
    wrong = {str(result.target): result.median.wrong for result in results if result.median.wrong}
    if wrong:
        raise LoadTestError(f"wrong answers: {', '.join(f'{name}: {number}' for name, number in wrong.items())}")


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ArgumentTypeError(f"expected 1 or more, got {text}")
    return number


def _rate(text: str) -> Rate:
    try:
        return Rate.parse(text)
    except ValueError as error:
        raise ArgumentTypeError(f"expected requests/s such as 80, or a share such as 70%, got {text!r}") from error


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    if not (width.isdigit() and height.isdigit() and int(width) and int(height)):
        raise ArgumentTypeError(f"expected a width and a height such as 640x427, got {text!r}")
    return int(width), int(height)


def _named_path(text: str) -> tuple[str, Path]:
    name, separator, path = text.partition("=")
    if not separator:
        raise ArgumentTypeError(f"expected MODEL=PATH, got {text!r}")
    return name, Path(path)


if __name__ == "__main__":
    run(main)
