"""The values of docs/evidence/reliability.md."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lab.pages.formatting import add_unit, split_unit, summarise_values
from lab.testbed.findings import BY_TESTS_ALONE, CLAIMS, Finding, read_findings


def read_values(folder: Path) -> dict[str, Any]:
    findings = sorted(read_findings(folder).values(), key=lambda finding: order_of(finding.row))
    return {
        "findings": findings,
        "broken": [finding for finding in findings if not finding.held],
        "missing": [row for row in CLAIMS if row not in {finding.row for finding in findings}.union(BY_TESTS_ALONE)],
        "by_tests": BY_TESTS_ALONE,
        "claims": CLAIMS,
        "plots": sorted(path.name for path in folder.glob("*.svg")),
        "machines": describe_machines(findings),
        "summarise_figures": summarise_figures,
    }


def summarise_figures(finding: Finding) -> list[str]:
    """Return a line for each figure, and one for all counts that are 0."""
    zeros = [
        name
        for name, value in finding.measured.items()
        if not split_unit(name)[1] and not any(value if isinstance(value, list) else [value])
    ]
    lines = [add_unit(summarise_values(value), name) for name, value in finding.measured.items() if name not in zeros]
    return [*lines, f"0: {', '.join(split_unit(name)[0] for name in zeros)}"] if zeros else lines


def order_of(row: str) -> tuple[str, int, str]:
    """Return a key that sorts B2 before B10."""
    found = re.match(r"([A-Z])(\d*)(.*)", row)
    return (found[1], int(found[2] or 0), found[3]) if found else ("~", 0, row)


def describe_machines(findings: Iterable[Finding]) -> str:
    machines = [
        f"{entry.machine['cpu']}, {entry.machine['cores']} cores, {entry.machine['memory_gb']} GB"
        for entry in findings
        if entry.machine
    ]
    return "; ".join(dict.fromkeys(machines)) or "none yet"
