"""What lab/run_chaos.py does."""

from argparse import Namespace

import orjson
from rich.console import Console
from rich.table import Table

from lab.pages.formatting import list_values
from lab.pages.rendering import write_page
from lab.reliability.rows import NAMES, choose_rows, run_rows
from lab.testbed.claims import CLAIMS
from lab.testbed.findings import Finding, write_finding
from mar_tools.terminal import new_table, number_column, print_tables
from vision_serving.errors import VisionServingError


def run_chaos(arguments: Namespace) -> None:
    """Measure the chosen rows and write the page, or list them."""
    if arguments.list:
        print("\n".join(f"{name:12} {CLAIMS[name]}" for name in NAMES))
        return
    findings = measure_rows(arguments)
    page = write_page("reliability", arguments.results)
    if arguments.json:
        print(orjson.dumps([finding.model_dump(mode="json") for finding in findings]).decode())
    else:
        print_tables(findings_table(findings))
    broken = [finding.row for finding in findings if not finding.held]
    if broken:
        raise VisionServingError(f"not held: {', '.join(broken)}; see {page}")


def measure_rows(arguments: Namespace) -> list[Finding]:
    """Write each finding when it is there."""
    names = choose_rows(arguments.rows)
    console = Console(stderr=True)
    findings = []
    with console.status("") as status:

        def announce(step: str) -> None:
            status.update(step)
            if not console.is_terminal:
                console.print(step)

        for finding in run_rows(
            names, arguments.repetitions, arguments.seed, announce, arguments.rate, arguments.fuzz_s
        ):
            write_finding(finding, arguments.results)
            console.print(f"{finding.row}: {'held' if finding.held else 'NOT held'}", highlight=False)
            for problem in finding.problems or (() if finding.held else finding.failures):
                console.print(f"  {problem}", markup=False, highlight=False, soft_wrap=True)
            findings.append(finding)
    return findings


def findings_table(findings: list[Finding]) -> Table:
    table = new_table("row", "held", number_column("times"), "measured")
    for finding in findings:
        figures = ", ".join(f"{name} {list_values(value)}" for name, value in finding.measured.items())
        table.add_row(finding.row, "held" if finding.held else "[red]NOT held[/]", str(finding.repetitions), figures)
    return table
