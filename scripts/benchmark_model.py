"""Load-test models that the running TorchServe serves: JPEG in, JSON out, every answer compared with the expected one.

    python scripts/benchmark_model.py resnet50
    python scripts/benchmark_model.py resnet50 --connections 1 2 4 8 16 --rates 50% 70% 85% --in-process
    python scripts/benchmark_model.py resnet50 resnet50_int8 --connections 16 --json results.json --plots plots/

A closed loop (--connections) keeps each connection busy and shows throughput. An open loop (--rates, requests/s or a
share of the best closed loop) sends at random times and shows what users wait. --in-process adds P: the same archive,
threads and cores without a server. All of it takes turns. The tables show the medians over the rounds.

The expected answers come from the archive in the model store. CPU time and memory are those of the whole server,
whatever else it serves. The client shares the cores with the server: compare only what ran in one run.
"""

from argparse import Namespace

from mar_tools.command_line import new_parser, run
from mar_tools.load_testing.options import add_load_options


def main() -> None:
    arguments = parse_arguments()
    from mar_tools.load_testing.http_client import require_aiohttp  # these import PyTorch, which --help needs not
    from mar_tools.load_testing.reporting import report, run_all
    from mar_tools.load_testing.served import prepare_workload

    require_aiohttp()  # now, and not after minutes
    workload = prepare_workload(arguments, {})
    trials = workload.closed_trials(arguments) + workload.in_process_trials(arguments)
    results = run_all(trials, arguments.rounds)
    results += run_all(workload.open_trials(arguments, results), arguments.rounds)
    report(results, workload.as_document(), arguments, workload.unchecked)


def parse_arguments() -> Namespace:
    parser = new_parser(__doc__)
    add_load_options(parser)
    arguments = parser.parse_args()
    if not arguments.models:
        parser.error("give the names of served models")
    return arguments


if __name__ == "__main__":
    run(main)
