"""What lab/run_soak.py does."""

import tempfile
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from lab.pages.rendering import write_page
from lab.reliability.malformed import run_malformed
from lab.reliability.soak import soak
from lab.reliability.soak_plots import plot_soak, write_curves
from lab.testbed.archives import build_archives
from lab.testbed.findings import Finding, write_finding
from lab.testbed.world import open_world
from vision_serving.errors import VisionServingError


def run_soak(arguments: Namespace) -> None:
    """Send the traffic; write the result, the plots and the page."""
    console = Console(stderr=True)
    with console.status("building the archives") as status:
        finding = measure_soak(arguments, status.update)
    page = write_page("reliability", arguments.results)
    if arguments.json:
        print(finding.model_dump_json())
    else:
        for name, value in finding.measured.items():
            print(f"{name:28} {value:g}")
        print("\n".join((*finding.problems, *finding.failures)))
    if not finding.held:
        raise VisionServingError(f"not held: {finding.row}; see {page}")


def measure_soak(arguments: Namespace, announce: Callable[[str], None]) -> Finding:
    what = f"--malformed --count {arguments.count}" if arguments.malformed else f"--minutes {arguments.minutes:g}"
    rate = f" --rate {arguments.rate:g}" if arguments.rate else ""
    command = f"python lab/run_soak.py {what} --seed {arguments.seed}{rate}"
    with tempfile.TemporaryDirectory(prefix="reliability-") as folder:
        archives = build_archives(Path(folder))
        announce("starting a server")
        with open_world(archives, {}, rate=arguments.rate) as world:
            if arguments.malformed:
                finding = run_malformed(world, arguments.count, arguments.seed, command, announce)
            else:
                soaked = soak(world, arguments.minutes, arguments.seed, command, announce)
                curves = write_curves(soaked, arguments.minutes, arguments.results)
                finding = soaked.finding
                plot_soak(curves, finding, arguments.results)
    write_finding(finding, arguments.results)
    return finding
