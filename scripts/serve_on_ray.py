"""Serve the archives of config.properties on Ray Serve, without TorchServe: the same routes, requests and answers.

    python scripts/serve_on_ray.py
    python scripts/serve_on_ray.py --listen 127.0.0.1:8000 --keys front/clients.map
    python scripts/serve_on_ray.py --address 10.0.0.5:6379  # deploy to a cluster that runs, and return
    python scripts/serve_on_ray.py --write-config serve.yaml  # for `serve deploy serve.yaml`

Without --address it starts a cluster of this machine, serves until it is interrupted, and ends the cluster. Workers,
batch sizes and delays come from config.properties: minWorkers and maxWorkers are the least and most replicas.

Deploying again is an upgrade: a new version becomes the default when it has given its golden prediction, and what is
no longer named goes after that. docs/operate/ray.md says what differs from TorchServe.
"""

import argparse
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from mar_tools.command_line import ROOT, new_parser, positive, positive_count, run
from mar_tools.serving.ports import listening_places
from mar_tools.terminal import name_column, new_table, number_column, print_tables, show_work
from vision_serving.errors import ConfigError
from vision_serving.worker.server_settings import read_properties, read_text

if TYPE_CHECKING:
    from mar_tools.ray_serving.deploying import Deployed


MB = 10**6


def main() -> None:
    arguments = parse_arguments()
    from mar_tools.ray_serving.configuration import Ingresses, plan_serving

    host, port = read_listen(arguments)
    # On a cluster each listens on a machine of its own; those of one machine share the port.
    is_here = arguments.address is None or arguments.address.startswith("127.0.0.1:")
    apart = arguments.write_config is not None or not is_here
    plan = plan_serving(
        arguments.config,
        (host, port),
        arguments.keys,
        Ingresses(arguments.ingresses, apart),
        arguments.on_demand_memory * MB,
    )
    for why in plan.left_out.values():
        print(f"not served: {why}", file=sys.stderr)
    if arguments.write_config is not None:
        import yaml

        arguments.write_config.write_text(yaml.safe_dump(plan.document, sort_keys=False), encoding="utf-8")
        print(arguments.write_config)
        return
    os.umask(0o077)  # Ray's token and logs are nobody else's
    from mar_tools.cluster.connecting import ClusterError, connect
    from mar_tools.ray_serving.deploying import deploy, drain, start_serve

    # A core a replica, as Ray counts; as many again for the new versions of an upgrade.
    with connect(arguments.address, 2 * plan.most_replicas, ships_code=False) as cluster:
        with show_work("starting Ray Serve", silent_elsewhere=True) as announce:
            start_serve(plan, is_new=arguments.address is None)
            found = deploy(plan, arguments.timeout_s, announce)
        show(found)
        bad = [f"{each.model} {each.version}: {each.problem}" for each in found if each.problem is not None]
        if bad and (arguments.address is not None or len(bad) == len(found)):
            raise ClusterError("; ".join(bad))
        if arguments.address is None:
            print(f"the cluster is {cluster.address}; --address {cluster.address} deploys to it", flush=True)
            print(f"serving at http://{host}:{port}; interrupt to stop", flush=True)
            try:
                wait_for_signal()
            finally:
                drain(plan.answer_timeout_s)


def wait_for_signal() -> None:
    """Wait until this command is interrupted or ended."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda received, _: sys.exit(128 + received))  # Ray has put its own in their place
    while True:
        signal.pause()


def show(found: "list[Deployed]") -> None:
    table = new_table(name_column("model"), "version", number_column("replicas"), name_column("state"))
    for each in found:
        table.add_row(each.model, each.version, str(each.replicas or "on demand"), each.problem or "serves")
    print_tables(table)


def read_listen(arguments: argparse.Namespace) -> tuple[str, int]:
    """Return host and port: of --listen, else where config.properties has TorchServe's. Raises ConfigError."""
    if arguments.listen is None:
        return listening_places(read_properties(read_text(arguments.config)))["inference_address"]
    host, _, port = str(arguments.listen).rpartition(":")
    if not host or not port.isdecimal():
        raise ConfigError(f"--listen {arguments.listen}: expected HOST:PORT, as 127.0.0.1:8080")
    return host.strip("[]"), int(port)


def parse_arguments() -> argparse.Namespace:
    parser = new_parser(__doc__)
    parser.add_argument("--config", type=Path, default=ROOT / "config.properties", metavar="FILE", help="TorchServe's")
    parser.add_argument("--listen", metavar="HOST:PORT", help="default: inference_address of config.properties")
    parser.add_argument(
        "--keys", type=Path, metavar="FILE", help="client keys of serve_front.py; without, none is asked"
    )
    parser.add_argument(
        "--ingresses",
        type=positive_count,
        default=1,
        metavar="N",
        help="processes that listen (1); on a cluster, on N machines",
    )
    parser.add_argument(
        "--on-demand-memory",
        type=positive_count,
        default=2000,
        metavar="MB",
        help="of archives with minWorkers=0 that are loaded at a time (2000)",
    )
    parser.add_argument("--address", help="of a running cluster: `auto`, or host:port of its head")
    parser.add_argument("--write-config", type=Path, metavar="FILE", help="write the Serve configuration, and end")
    parser.add_argument("--timeout-s", type=positive, default=300.0, metavar="S", help="for all to answer (300)")
    return parser.parse_args()


if __name__ == "__main__":
    run(main)
