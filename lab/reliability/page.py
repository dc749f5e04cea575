"""docs/evidence/reliability.md from lab/results/reliability/*.json: the same findings give the same page."""

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from lab.pages.places import page_of
from lab.reliability.page_texts import INTRODUCTION, LIMITS
from lab.testbed.claims import BY_TESTS_ALONE, CLAIMS, PROOFS, SECTIONS, Proof
from lab.testbed.findings import Finding, read_findings
from vision_serving.errors import ConfigError

COLUMNS = "| row | what is done | what must hold | measured | held | times | date |\n" + "| --- " * 7 + "|"
FEW = 40  # values that are shown one by one


def write_page(results: Path) -> Path:
    page_of(results).write_text(render_page(results), encoding="utf-8")
    return page_of(results)


def check_page(results: Path) -> Path:
    """Raises ConfigError where it is not what the findings give."""
    page = page_of(results)
    if not page.is_file() or page.read_text(encoding="utf-8") != render_page(results):
        raise ConfigError(f"{page}: not what {results} gives; run `python lab/run_chaos.py --render`")
    return page


def render_page(results: Path) -> str:
    """results: the folder of the findings and their plots."""
    findings = sorted(read_findings(results).values(), key=lambda finding: order_of(finding.row))
    parts = [INTRODUCTION.format(machines=describe_machines(findings))]
    for letter, title in SECTIONS.items():
        own = [finding for finding in findings if finding.row.startswith(letter)]
        proofs = [proof for proof in PROOFS if proof.row.startswith(letter)]
        plots = sorted(os.path.relpath(path, page_of(results).parent) for path in results.glob(f"{letter}*.svg"))
        parts.append(render_section(letter, title, own, proofs, plots))
    return "\n".join([*parts, LIMITS])


def render_section(
    letter: str, title: str, findings: Sequence[Finding], proofs: Sequence[Proof], plots: Sequence[str]
) -> str:
    lines = [f"## {letter}. {title}", ""]
    if findings:
        lines += [COLUMNS, *(render_row(finding) for finding in findings), "", "Measured by", ""]
        lines += [f"    {command}" for command in dict.fromkeys(finding.command for finding in findings)] + [""]
        lines += [line for finding in findings for line in render_details(finding)]
    lines += [line for plot in plots for line in (f"![{Path(plot).stem}]({plot})", "")]
    if proofs:
        lines += ["Shown by tests", "", "| row | what holds | test |", "| --- | --- | --- |"]
        lines += [f"| {proof.row} | {proof.claim} | [`{proof.test}`](../../{proof.file}) |" for proof in proofs] + [""]
    told = {finding.row for finding in findings}.union(BY_TESTS_ALONE)
    missing = [f"{row} ({text})" for row, text in CLAIMS.items() if row.startswith(letter) and row not in told]
    if missing:
        lines += [f"Not measured yet: {'; '.join(missing)}.", ""]
    return "\n".join(lines)


def render_row(finding: Finding) -> str:
    figures = "; ".join(f"{name.replace('_', ' ')} {describe(value)}" for name, value in finding.measured.items())
    held = "held" if finding.held else "**NOT held**"
    cells = (finding.row, finding.fault, finding.must_hold, figures, held, str(finding.repetitions), finding.date)
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"


def describe(value: Any) -> str:
    """Counts one by one, for none may hide behind an average; other figures as median (least - most)."""
    if not isinstance(value, list):
        return f"{value:g}" if isinstance(value, float) else str(value)
    if len(set(value)) == 1:
        return f"{value[0]:g}" + (" each time" if len(value) > 1 else "")
    if all(float(entry).is_integer() for entry in value) and len(value) <= FEW:
        return ", ".join(f"{entry:g}" for entry in value)
    ranked = sorted(value)
    return f"{ranked[len(ranked) // 2]:.3g} ({ranked[0]:.3g} - {ranked[-1]:.3g})"


def render_details(finding: Finding) -> list[str]:
    lines = []
    for title, found in (("did not hold", finding.problems), ("failures", finding.failures)):
        if found:
            lines += ["<details>", f"<summary>{finding.row}: {title}, by repetition ({len(found)})</summary>", ""]
            lines += [f"- {escape(entry)}" for entry in found] + ["", "</details>", ""]
    return lines


def escape(text: str) -> str:
    return re.sub(r"([\\<>|*_`\[\]])", r"\\\1", text)


def order_of(row: str) -> tuple[str, int, str]:
    """B2 before B10."""
    found = re.match(r"([A-Z])(\d*)(.*)", row)
    return (found[1], int(found[2] or 0), found[3]) if found else ("~", 0, row)


def describe_machines(findings: Iterable[Finding]) -> str:
    machines = [
        f"{entry.machine['cpu']}, {entry.machine['cores']} cores, {entry.machine['memory_gb']} GB"
        for entry in findings
        if entry.machine
    ]
    return "; ".join(dict.fromkeys(machines)) or "none yet"
