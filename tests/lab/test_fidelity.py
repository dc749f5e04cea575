"""Golden comparison: frozen preprocessing and eager archives against the libraries themselves, on photographs."""

import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import torch

from lab.fidelity.compared_models import Library
from lab.fidelity.comparison import compare_answers, compare_pixels, list_cases
from lab.fidelity.pictures import EncodedPhotograph, make_pictures
from lab.fidelity.results import Fidelity, ModelFidelity, read_fidelity, write_fidelity
from lab.pages.rendering import PAGES
from mar_tools.command_line import ROOT

COMMITTED = PAGES["fidelity"]
# A photograph, a tall picture that Pillow 13 resizes height first, a small one to enlarge; and a JPEG.
SIZES_HW = ((375, 500), (600, 150), (53, 37))
# What docs/evidence/fidelity.md promises, with the noise of float32.
MOST_LEVELS = 2.01
MOST_OVER_ONE_LEVEL = 1e-4
LEAST_SNR_DB = 35.0

# Small ones of each library, whose settings differ.
SMALL = (
    "torchvision/squeezenet1_1 IMAGENET1K_V1",
    "torchvision/efficientnet_b0 IMAGENET1K_V1",
    "torchvision/ssdlite320_mobilenet_v3_large",
    "timm/test_resnet.r160_in1k",
    "timm/tinynet_e.in1k",
    "timm/resnet10t.c3_in1k, squash, not square",
    "huggingface/vit",
    "huggingface/convnext at 224",
    "huggingface/mobilevit, BGR",
    "huggingface/conditional_detr",
)


@cache
def pictures() -> list[EncodedPhotograph]:
    return make_pictures(rounds=1, sizes_hw=SIZES_HW)


@pytest.mark.parametrize("name", SMALL)
def test_pixels_and_answers_are_the_librarys(tmp_path: Path, name: str) -> None:
    [case] = (case for case in list_cases() if case.full_name == name)
    with torch.inference_mode():
        compared = case.open(tmp_path)
        pixels = compare_pixels(compared, pictures())
        answers = compare_answers(compared, pictures())
    assert pixels.largest <= MOST_LEVELS
    assert pixels.beyond_one <= MOST_OVER_ONE_LEVEL
    assert answers.snr_db is None or answers.snr_db >= LEAST_SNR_DB
    assert answers.same_best in (1.0, None)
    # Boxes of an untrained detector nearly tie: a level in a pixel decides between them, unless the pixels are equal.
    assert answers.matched_boxes is None or answers.matched_boxes >= (1.0 if pixels.largest == 0 else 0.8)
    assert answers.compared_boxes is None or answers.compared_boxes >= 10, "few boxes would prove little"


@pytest.fixture(scope="module")
def committed() -> Fidelity:
    return read_fidelity(COMMITTED)


def test_every_model_has_its_committed_figures(committed: Fidelity) -> None:
    assert [row.full_name for row in committed.rows] == [case.full_name for case in list_cases()]


@pytest.mark.parametrize(("library", "least"), [("torchvision", 16), ("timm", 8), ("huggingface", 6)])
def test_many_models_of_each_library_are_compared(committed: Fidelity, library: Library, least: int) -> None:
    settings = {row.settings for row in committed.rows if row.library == library}
    assert len(settings) >= least


def test_the_committed_figures_keep_what_the_page_promises(committed: Fidelity) -> None:
    def keeps(row: ModelFidelity) -> bool:
        return row.pixels.largest <= MOST_LEVELS and row.pixels.beyond_one <= MOST_OVER_ONE_LEVEL

    assert [row.full_name for row in committed.rows if not keeps(row)] == []
    answered = [(row.full_name, row.answers) for row in committed.rows if row.answers is not None]
    assert [name for name, answers in answered if answers.same_best not in (1.0, None)] == []


def test_figures_that_are_written_are_read_again(tmp_path: Path, committed: Fidelity) -> None:
    write_fidelity(committed, tmp_path / "fidelity.json")
    assert (tmp_path / "fidelity.json").read_bytes() == COMMITTED.read_bytes()


def test_a_pattern_that_fits_no_model_is_refused() -> None:
    command = [sys.executable, str(ROOT / "lab" / "measure_fidelity.py"), "--models", "timm/none*", "--list"]
    finished = subprocess.run(command, capture_output=True, text=True)
    assert finished.returncode == 1
    assert finished.stderr == "error: no model fits 'timm/none*'; --list shows them\n"
