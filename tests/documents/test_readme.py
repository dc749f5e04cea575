"""The README is short, and its picture and figures are those that were predicted and measured."""

import re
from pathlib import Path

import orjson
import pytest
from markdown_pages import ROOT

from examples.make_notes import NOTES, OPTIONS
from mar_tools.exporting.export import export_model
from mar_tools.models.checkpoints import load_checkpoint
from mar_tools.models.recipes import read_recipe
from mar_tools.verification.observations import load_handler
from vision_serving.answers.responses import encode_response
from vision_serving.requests.payload import Payload

README = (ROOT / "README.md").read_text(encoding="utf-8")
EXAMPLES = ROOT / "examples"
FIRST_SCREEN = 15  # lines


def test_it_has_at_most_6_kb() -> None:
    assert len(README.encode()) <= 6 * 1024


def test_the_first_command_stands_within_the_first_screen() -> None:
    assert "bash scripts/quickstart.sh" in "\n".join(README.splitlines()[:FIRST_SCREEN])


def test_the_json_beside_the_picture_is_of_its_answer() -> None:
    shown = [orjson.loads(" ".join(text.split())) for text in re.findall(r'\{"class_id".*?\}', README, re.DOTALL)]
    answer = orjson.loads((EXAMPLES / "notes" / "answer.json").read_bytes())
    assert shown == answer["detections"][: len(shown)]
    assert f'"image": {{"width": {answer["image"]["width"]}, "height": {answer["image"]["height"]}}}' in README


def test_the_options_of_its_request_are_those_of_the_picture() -> None:
    assert f"X-Inference-Options: {'; '.join(f'{name}={value}' for name, value in OPTIONS.items())}" in README


def test_the_detector_reads_the_notes_of_the_picture(tmp_path: Path) -> None:
    recipe = read_recipe(EXAMPLES / "digits_detection" / "recipe.yaml")
    handler = load_handler(export_model(recipe, load_checkpoint(recipe), "eager", "fp32", tmp_path))
    picture = (EXAMPLES / "notes" / "notes.jpg").read_bytes()
    (outcome,) = handler.predict([Payload(images=(picture,), options=OPTIONS)])
    found = orjson.loads(encode_response(outcome).body)
    expected = orjson.loads((EXAMPLES / "notes" / "answer.json").read_bytes())
    assert sorted(entry["label"] for entry in found["detections"]) == sorted("".join(note.text for note in NOTES))
    for entry, other in zip(sort_by_label(found), sort_by_label(expected), strict=True):
        assert entry["box"] == pytest.approx(other["box"], abs=2)


def sort_by_label(answer: dict[str, list[dict[str, str]]]) -> list[dict[str, str]]:
    return sorted(answer["detections"], key=lambda entry: entry["label"])


@pytest.mark.parametrize(
    ("example", "measure"), [("digits_classification", "accuracy"), ("digits_detection", "map_50")]
)
def test_the_figures_of_the_examples_are_those_of_their_training(example: str, measure: str) -> None:
    results = orjson.loads((EXAMPLES / example / "results.json").read_bytes())
    row = next(line for line in (EXAMPLES / "README.md").read_text().splitlines() if line.startswith(f"| [{example}]"))
    assert f"{results[measure]:.3f}" in row
