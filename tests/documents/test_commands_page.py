"""What the page of the commands says that a build prints is what a build prints, but for the figures."""

import io
import re
from typing import Any

from markdown_pages import ROOT
from rich.console import Console

from mar_tools.building.candidates import Candidate
from mar_tools.building.table import ORDER, candidate_table, describe_preprocessing
from mar_tools.exporting.exporters import list_candidates
from mar_tools.models.recipes import read_recipe
from vision_serving.config import PreprocessingConfig

PAGE = (ROOT / "docs" / "use" / "commands.md").read_text(encoding="utf-8")
SECTION = PAGE[PAGE.index("## What a build prints") : PAGE.index("## Serving what was built")]
PRINTED: list[str] = [line.rstrip() for line in re.findall(r"```\n(.*?)```", SECTION, re.DOTALL)[0].splitlines()]
ROW = re.compile(rf"(\w+) (fp32|fp16|bf16|int8) +([\d. ]+?) +({'|'.join(ORDER)})$")


def read_rows() -> list[Candidate]:
    """Return the candidates of the printed table, with the figures that stand there."""
    rows = []
    for backend, precision, figures, verdict in filter(None, (_match(line) for line in PRINTED)):
        size, load, one, four, speedup, same, snr, share = map(float, figures.split())
        rows.append(
            Candidate(
                backend, precision, "cpu", verdict, size_mb=size, load_s=load, images_per_s={"1": one, "4": four},
                speedup=speedup, measured={"matched_boxes": same, "snr_db": snr}, accuracy={"map": share},
            )
        )  # fmt: skip
    return rows


def _match(line: str) -> tuple[Any, ...] | None:
    found = ROW.fullmatch(line)
    return found.groups() if found else None


def test_the_table_has_the_form_and_order_of_a_build_s() -> None:
    left_out = [Candidate("tvm", "fp32", "cpu", "not tried", reason=_reason_of("tvm fp32"))]
    output = io.StringIO()
    Console(file=output, width=200).print(candidate_table([*read_rows(), *left_out]))
    expected = [line.rstrip() for line in output.getvalue().splitlines()]
    first = next(index for index, line in enumerate(PRINTED) if "images/s" in line)
    assert PRINTED[first : first + len(expected)] == expected


def _reason_of(name: str) -> str:
    (line,) = (line for line in PRINTED if line.startswith(f"not tried: {name}, as "))
    return line.partition(", as ")[2]


def test_the_candidates_of_the_table_are_still_tried_on_a_cpu() -> None:
    """The table is of its day: a backend that was added since does not stand in it."""
    pairs = [(row.backend, row.precision) for row in read_rows()]
    assert len(pairs) > 1
    assert set(pairs) <= set(list_candidates("cpu"))


def test_the_fastest_one_was_chosen() -> None:
    rows = read_rows()
    assert [row.verdict for row in rows] == ["chosen"] + ["verified"] * (len(rows) - 1)
    assert max(rows, key=lambda row: row.images_per_s["4"]) == rows[0]


def test_the_preprocessing_is_that_of_the_example() -> None:
    recipe = read_recipe(ROOT / "examples" / "digits_detection" / "recipe.yaml")
    assert isinstance(recipe.preprocessing, PreprocessingConfig)
    assert describe_preprocessing(recipe.preprocessing) in PRINTED
