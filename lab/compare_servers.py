"""Load-test a served model beside other servers, started with the same artifact and code, or as their tutorials show.

    python lab/compare_servers.py resnet50 --export resnet50=lab/exports/resnet50/openvino-int8 --compare stock litserve
    python lab/compare_servers.py resnet50 --export resnet50=... --compare mosec-artifact --connections 16 --rounds 5
    python lab/compare_servers.py --check-client      # how fast is the client? It needs no server

The loads are those of scripts/benchmark_model.py. The servers are the folders of lab/peers/servers. They get the first
model's export, workers and batches, and take turns with it. --export MODEL=FOLDER gives the expected answers too.
"""

import runpy
from argparse import ArgumentTypeError, Namespace
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if __name__ == "__main__":  # outside the environment, this names the command that helps
    runpy.run_path(str(Path(__file__).parents[1] / "scripts/mar_tools/__init__.py"))

from mar_tools.command_line import new_parser, run
from mar_tools.load_testing.options import add_load_options
from vision_serving.errors import ConfigError

if TYPE_CHECKING:
    from lab.peers.contest import Contestant
    from mar_tools.load_testing.served import Workload


def main() -> None:
    arguments = parse_arguments()
    from mar_tools.load_testing.http_client import require_aiohttp  # these import PyTorch, which --help needs not

    require_aiohttp()
    (check_client if arguments.check_client else compare)(arguments)


def parse_arguments() -> Namespace:
    parser = new_parser(__doc__)
    add_load_options(parser)
    parser.add_argument(
        "--export", type=_named_path, nargs="+", default=[], metavar="MODEL=PATH", help="expected answers"
    )
    parser.add_argument("--compare", nargs="+", default=[], metavar="SERVER", help="stock, litserve, mosec-artifact...")
    parser.add_argument("--check-client", action="store_true", help="load a server that does next to nothing")
    arguments = parser.parse_args()
    if bool(arguments.models) == arguments.check_client:
        parser.error("give the names of served models, or --check-client")
    return arguments


def compare(arguments: Namespace) -> None:
    from mar_tools.load_testing.comparison import compare_results
    from mar_tools.load_testing.reporting import report, run_all
    from mar_tools.load_testing.served import prepare_workload

    workload = prepare_workload(arguments, dict(arguments.export))
    trials = workload.closed_trials(arguments) + workload.in_process_trials(arguments)
    with start_others(arguments, workload) as (contestants, refused):
        trials += [
            entry.new_trial(number, arguments.round_s) for number in arguments.connections for entry in contestants
        ]
        results = run_all(trials, arguments.rounds)
    results += run_all(workload.open_trials(arguments, results), arguments.rounds)
    document = {
        **workload.as_document(),
        "peers": {contestant.target.name: contestant.as_document() for contestant in contestants},
        "not_started": refused,
        "ratios": compare_results(results, arguments.models[0]),
    }
    report(results, document, arguments, workload.unchecked)


@contextmanager
def start_others(arguments: Namespace, workload: "Workload") -> Iterator[tuple[list["Contestant"], dict[str, str]]]:
    """Start the servers of --compare. Raises ConfigError where the first model has no export."""
    from rich.console import Console

    from lab.peers.contest import start_contestants
    from lab.peers.peers import ServerSettings

    if not arguments.compare:
        yield [], {}
        return
    model = workload.models[0]
    export = workload.exports[model.target.name]
    if export is None or not export.is_dir():
        raise ConfigError(f"--compare needs the export of {model.target.name}: --export {model.target.name}=FOLDER")
    own = ServerSettings(model.workers, model.threads.engine, model.batch_size, model.max_batch_delay_ms)
    console = Console(stderr=True)
    with ExitStack() as stack:
        with console.status("") as status:
            others = start_contestants(arguments.compare, export, workload.images, own, status.update)
            contestants, refused = stack.enter_context(others)
        for name, reason in refused.items():
            console.print(f"{name} is left out: {reason}", highlight=False, markup=False)
        yield contestants, refused


def check_client(arguments: Namespace) -> None:
    """Load a server that does next to nothing."""
    from lab.peers.contest import start_trivial_server
    from mar_tools.load_testing.reporting import report, run_all
    from mar_tools.load_testing.served import load_images
    from mar_tools.load_testing.targets import prepare_requests
    from mar_tools.load_testing.trials import closed_trial

    requests = prepare_requests(load_images(arguments))
    with start_trivial_server() as target:
        trials = [closed_trial(target, requests, number, arguments.round_s) for number in arguments.connections]
        results = run_all(trials, arguments.rounds)
    report(results, {"target": target.name}, arguments, [target.name])


def _named_path(text: str) -> tuple[str, Path]:
    name, separator, path = text.partition("=")
    if not separator:
        raise ArgumentTypeError(f"expected MODEL=PATH, got {text!r}")
    return name, Path(path)


if __name__ == "__main__":
    run(main)
