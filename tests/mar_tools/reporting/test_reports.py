"""The report of a build: one file that is safe to open, with what there is to see."""

import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import orjson
import PIL.Image
import pytest
import torch
from conftest import RunHere, TinyModel
from fakes import noise_image
from report_evidence import (
    HOSTILE,
    ROWS,
    box_truth,
    boxes,
    classes,
    classifier_evidence,
    detector_evidence,
    make_evidence,
    without_answers,
)

from mar_tools.building.candidates import Candidate
from mar_tools.building.trials import new_trial, read_row
from mar_tools.reporting.build_reports import report_build, report_refused
from mar_tools.reporting.by_class import MOST_CLASSES, measure_by_class
from mar_tools.reporting.evidence import Evidence
from mar_tools.reporting.galleries import choose_galleries
from mar_tools.reporting.kinds import Boxes
from mar_tools.reporting.page import fill_matrix, list_classes, render_report
from mar_tools.reporting.pictures import MOST_BYTES, embed_picture
from mar_tools.reporting.plots import plot_curves, plot_speed_and_accuracy
from mar_tools.verification.kept_answers import find_answers, keep_answers, read_answers
from mar_tools.verification.observations import Observation
from vision_serving.config import ColourConfig
from vision_serving.predictions import Detection, ImageSize, KeypointDetection, OrientedDetection, PolygonDetection
from vision_serving.validation import read_json

EVIDENCE = {"classifier": classifier_evidence, "detector": detector_evidence}


class Elements(HTMLParser):
    """Collects elements with their attributes, and the text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join("".join(self.words).split())


@pytest.fixture(params=EVIDENCE, scope="module")
def evidence(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Evidence:
    return EVIDENCE[request.param](tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def page(evidence: Evidence) -> Elements:
    return Elements(render_report(evidence))


def test_foreign_text_is_text(page: Elements) -> None:
    """Labels, names of files, reasons and versions: none becomes an element or an attribute."""
    assert "script" not in {tag for tag, _ in page.found}
    assert [name for _, attributes in page.found for name in attributes if name.startswith("on")] == []
    assert HOSTILE[0] in page.text
    assert "\x1b" not in page.text
    assert "{{ 7 * 7 }}" in page.text


def test_nothing_is_loaded_from_anywhere(page: Elements) -> None:
    places = [value for _, attributes in page.found for name in ("src", "href") if (value := attributes.get(name))]
    assert places
    assert [place for place in places if not place.startswith(("data:", "#"))] == []
    assert "url(" not in "".join(page.words)
    assert "@import" not in "".join(page.words)


def test_every_picture_says_in_words_what_it_shows(page: Elements) -> None:
    images = [attributes for tag, attributes in page.found if tag == "img"]
    assert images
    assert all(image["alt"] for image in images)
    assert all(attributes.get("aria-label") for tag, attributes in page.found if tag == "svg")


def test_places_that_links_of_the_page_lead_to_are_there(page: Elements) -> None:
    there = {attributes.get("id") for _, attributes in page.found}
    links = [str(attributes["href"]) for tag, attributes in page.found if tag == "a"]
    assert len(links) >= 6
    assert [link for link in links if link.removeprefix("#") not in there] == []


def test_all_candidates_are_in_the_page_with_the_reason(page: Elements) -> None:
    assert [row.name for row in ROWS if row.name not in page.text] == []
    assert "75% of the chosen one's speed" in page.text
    assert "top-1 agreement 0.5, at least 0.97 asked" in page.text
    assert "Not tried: tvm fp32, as the budget of 1 min was used up" in page.text


def test_answers_that_changed_are_shown_side_by_side_the_clear_ones_first(tmp_path: Path) -> None:
    shown = choose_galleries(classifier_evidence(tmp_path))
    assert (shown.changed, shown.near) == (2, 1)
    assert [[caption.side for caption in each.captions] for each in shown.changes] == [
        ["eager fp32", "openvino int8"]
    ] * 2
    assert [each.note for each in shown.changes] == ["", "a near tie, which rounding decides"]


def test_boxes_that_came_or_went_are_a_change(tmp_path: Path) -> None:
    shown = choose_galleries(detector_evidence(tmp_path))
    assert (shown.changed, shown.near) == (1, 0)
    assert shown.changes[0].note == "1 box gone"
    assert [caption.line[:2] for caption in shown.changes[0].captions] == ["3 ", "2 "]


def test_a_box_on_either_side_of_the_threshold_is_a_change_by_rounding(tmp_path: Path) -> None:
    before, after = [boxes(0.9, 0.51)] * 6, [boxes(0.9, 0.49)] * 6
    shown = choose_galleries(make_evidence(tmp_path, "detection", before, after))
    assert (shown.changed, shown.near) == (6, 6)


def test_mistakes_are_shown_the_surest_first(tmp_path: Path) -> None:
    truth = [{"class_ids": torch.tensor([0])}] * 3
    answers = [*classes(1, sure=0.6), *classes(1, sure=0.8), *classes(0)]
    shown = choose_galleries(make_evidence(tmp_path, "classification", answers, answers, truth))
    assert shown.mistake_count == 2
    assert [each.captions[0].bars[0].score for each in shown.mistakes] == pytest.approx([0.8, 0.6])


def test_a_detector_s_answer_is_compared_with_the_annotations(tmp_path: Path) -> None:
    first, second, _ = (shown.captions[0] for shown in choose_galleries(detector_evidence(tmp_path)).samples)
    assert (first.truth, first.right) == ("2 of 3 annotated found", False)
    assert (second.truth, second.right) == ("3 of 3 annotated found", True)


def test_a_detector_that_finds_nothing_shows_its_best_boxes(tmp_path: Path) -> None:
    answers = [boxes(0.04, 0.03)] * 3
    shown = choose_galleries(make_evidence(tmp_path, "detection", answers, answers))
    assert [each.captions[0].line[:1] for each in shown.samples] == ["2"] * 3


def test_labels_that_come_or_go_are_a_change(tmp_path: Path) -> None:
    """Of independent scores; class 2 crosses its threshold clearly, class 1 within a tenth of it."""
    seen = [torch.tensor(scores).logit() for scores in ((0.9, 0.52, 0.2), (0.9, 0.48, 0.8), (0.9, 0.48, 0.2))]
    kept = read_answers([{"logits": logits, "thresholds": torch.full((3,), 0.5)} for logits in seen])
    own = make_evidence(
        tmp_path, "classification", [kept[0], kept[0]], [kept[1], kept[2]], labels="abc", activation="sigmoid"
    )
    shown = choose_galleries(own)
    assert [each.note for each in shown.changes] == ["gone: b; new: c", "gone: b"]
    assert shown.near == 1
    assert "gone: b; new: c" in Elements(render_report(own)).text


def test_several_labels_are_compared_with_those_that_the_picture_shows(tmp_path: Path) -> None:
    scores = torch.tensor([[0.9, 0.8, 0.1], [0.7, 0.2, 0.6], [0.1, 0.2, 0.3], [0.6, 0.1, 0.1]])
    kept = read_answers([{"logits": row.logit(), "thresholds": torch.full((3,), 0.5)} for row in scores])
    truth = [{"class_ids": torch.tensor(each, dtype=torch.int64)} for each in ([0, 1], [0, 1], [], [0, 2])]
    own = make_evidence(tmp_path, "classification", kept, kept, truth, labels="abc", activation="sigmoid")
    samples = [shown.captions[0] for shown in choose_galleries(own).samples]
    assert [(each.truth, each.right) for each in samples] == [
        ("it shows a, b", True),
        ("it shows a, b; missed: b; too many: c", False),
        ("it shows none of the labels", True),
        ("it shows a, c; missed: c", False),
    ]
    assert [bar.is_true for bar in samples[0].bars] == [True, True, False]
    assert own.main.by_class is not None
    found = {each.class_id: each for each in own.main.by_class.classes}
    # Class 1: the second picture shares its score with one that does not show it. Class 2: two are surer.
    assert {each.class_id: (each.count, each.share) for each in found.values()} == {
        0: (3, 1.0),
        1: (2, 0.8333),
        2: (1, 0.25),
    }
    assert found[2].curve == (0.25,) * 21
    text = Elements(render_report(own)).text
    assert "AP 0.250, 1 image" in text
    assert "Confusion" not in text


def test_turned_boxes_are_drawn_turned(tmp_path: Path) -> None:
    """A quarter turned square is a diamond in its upright hull; of a second box the corners were not observed."""
    seen = {**boxes(0.9, 0.8), "corners": torch.tensor([[[0.5, 0.0], [1.0, 0.5], [0.5, 1.0], [0.0, 0.5]]])}
    (kept,) = read_answers([seen])
    own = make_evidence(tmp_path, "detection", [kept], [kept])
    drawn = Boxes(own)._to_detections(Boxes(own)._boxes_of(0, kept), kept, ImageSize(80, 60)).detections
    assert isinstance(drawn[0], OrientedDetection)
    assert drawn[0].corners == (5, 5, 10, 15, 5, 25, 0, 15)
    assert type(drawn[1]) is Detection
    assert choose_galleries(own).samples[0].captions[0].picture.source


def draw_first(folder: Path, seen: Observation) -> tuple[Detection, ...]:
    """Return what is drawn of an answer that was written to a file and read again."""
    keep_answers(folder / "export", "0", [folder], [seen])
    kept = find_answers(folder / "export", "0", [folder])
    assert kept is not None
    own = make_evidence(folder, "detection", kept, kept)
    assert choose_galleries(own).samples[0].captions[0].picture.source
    return Boxes(own)._to_detections(Boxes(own)._boxes_of(0, kept[0]), kept[0], ImageSize(80, 60)).detections


SEEN = {**boxes(0.9, 0.8), "boxes": boxes(0.9, 0.8)["source_boxes"] / 2, "size_hw": torch.tensor([30.0, 40.0])}


@pytest.mark.parametrize("over", ["the box", "the model's pixels"])
def test_masks_are_drawn_where_they_lie(tmp_path: Path, over: str) -> None:
    """The left half of the first box; of a second one the mask was not observed."""
    if over == "the box":
        seen = {**SEEN, "masks": (torch.arange(28) < 14).float().expand(1, 28, 28)}
    else:  # whose cells are half as large: left of x = 2.5 of the model, 5 of the source
        seen = {**SEEN, "image_masks": (torch.arange(80) < 5).float().expand(1, 60, 80)}
    masked, bare = draw_first(tmp_path, seen)
    assert isinstance(masked, PolygonDetection)
    assert isinstance(bare, PolygonDetection)
    assert masked.polygons
    (outline,) = masked.polygons
    assert (min(outline[::2]), max(outline[::2])) == pytest.approx((0, 5), abs=0.6)
    assert (min(outline[1::2]), max(outline[1::2])) == pytest.approx((5, 25), abs=0.6)
    assert bare.polygons == ()


def test_keypoints_are_drawn_where_they_lie(tmp_path: Path) -> None:
    pointed, bare = draw_first(tmp_path, {**SEEN, "keypoints": torch.tensor([[[0.5, 0.0, 0.75], [1.0, 0.5, 0.25]]])})
    assert isinstance(pointed, KeypointDetection)
    assert pointed.keypoints == ((5, 5, 0.75), (10, 15, 0.25))
    assert type(bare) is Detection


def test_of_embeddings_the_nearest_images_are_shown(tmp_path: Path) -> None:
    vectors = torch.tensor([[1.0, 0.0], [3.0, 0.1], [0.0, 1.0], [0.1, 2.0], [1.0, 0.2]])
    kept = read_answers([{"embedding": vector} for vector in vectors])
    truth = [{"class_ids": torch.tensor([each])} for each in (0, 0, 1, 1, 1)]
    own = make_evidence(tmp_path, "embedding", kept, kept, truth, labels=())
    (*_, last), mistakes = choose_galleries(own).samples, choose_galleries(own).mistakes
    assert last.captions[0].bars[0].label == choose_galleries(own).samples[1].name
    assert [each.name for each in mistakes] == [last.name]
    assert own.main.by_class is not None
    assert [(each.class_id, each.share) for each in own.main.by_class.classes] == [(1, 0.6667), (0, 1.0)]
    shown = Elements(render_report(own)).text
    assert "the nearest is of another class" in shown
    assert "0 classes" not in shown
    assert "labels" not in shown, "there are none"


def test_classes_and_confusions_are_counted() -> None:
    truth = [{"class_ids": torch.tensor([each])} for each in (0, 0, 0, 1, 1, 2)]
    found = measure_by_class(classes(0, 1, 1, 1, 2, 2), truth)
    assert [(each.class_id, each.count, each.share) for each in found.classes] == [
        (0, 3, 0.3333),
        (1, 2, 0.5),
        (2, 1, 1.0),
    ]
    assert [(each.class_id, each.answered, each.count) for each in found.confusions] == [(0, 1, 2), (1, 2, 1)]


def test_precision_and_recall_of_boxes_are_those_of_coco() -> None:
    """Class 0: two of three boxes, nothing wrong. Class 2: one box, which a surer wrong one precedes."""
    wrong = boxes(0.9, 0.8, class_id=2)
    right = {**boxes(1.0, class_id=2), "source_boxes": wrong["source_boxes"][1:]}
    found = measure_by_class([boxes(0.9, 0.8), wrong], [box_truth(boxes(1.0, 1.0, 1.0)), box_truth(right)])
    by_id = {each.class_id: each for each in found.classes}
    assert by_id[0].curve == (1.0,) * 14 + (0.0,) * 7
    assert by_id[2].curve == (0.5,) * 21
    assert (by_id[2].share, by_id[2].share_50, by_id[0].count) == (0.5, 0.5, 3)


def test_a_thousand_classes_stay_readable(tmp_path: Path) -> None:
    count = 1500
    truth = [{"class_ids": torch.tensor([each])} for each in range(count)]
    answers = [{"class_ids": torch.tensor([each % 700]), "scores": torch.tensor([0.9])} for each in range(count)]
    own = replace(
        make_evidence(tmp_path, "classification", answers[:3], answers[:3], truth[:3]),
        labels=[f"class number {each}" for each in range(count)],
    )
    assert own.chosen is not None
    many = replace(own, chosen=replace(own.chosen, by_class=measure_by_class(answers, truth)))
    assert fill_matrix(many) is None
    assert len(list_classes(many)) == MOST_CLASSES
    written = render_report(many)
    assert f"{MOST_CLASSES - 20} more classes" in written
    assert len(written) < 1_000_000


def test_the_plot_keeps_points_names_and_the_bound_inside(evidence: Evidence) -> None:
    plot = plot_speed_and_accuracy(evidence)
    assert plot is not None
    assert plot.bound is not None
    assert [point.name for point in plot.points if not plot.left <= point.x <= plot.right] == []
    assert [point.name for point in plot.points if not plot.top <= point.y <= plot.bottom] == []
    assert [point.name for point in plot.points if point.label_x < plot.left] == [], "over the figures of the axis"
    fast, slow = (next(each for each in plot.points if each.verdict == verdict) for verdict in ("chosen", "reference"))
    assert fast.x > slow.x
    assert fast.y > slow.y, "less accurate: lower, and y goes down"
    rejected = next(each for each in plot.points if each.verdict == "rejected")
    assert (rejected.x, rejected.y) == (plot.left, plot.bottom), "not timed, and below all others"
    assert len(plot.points) == len(ROWS) - 1, "but for the one that was not tried"


def test_without_a_truth_the_plot_shows_how_near_candidates_are_to_eager_fp32(evidence: Evidence) -> None:
    rows = [replace(row, accuracy=None) for row in ROWS]
    plot = plot_speed_and_accuracy(replace(evidence, rows=rows, truth=None))
    assert plot is not None
    assert "SNR" in plot.y_title
    assert plot_speed_and_accuracy(replace(evidence, rows=[])) is None


def test_curves_show_the_reference_beside_the_chosen_one(tmp_path: Path) -> None:
    every, *own = plot_curves(detector_evidence(tmp_path))
    assert every.title == "all classes"
    assert all(curve.points and curve.other for curve in (every, *own))
    assert plot_curves(classifier_evidence(tmp_path)) == []


def test_a_report_needs_no_answers(evidence: Evidence) -> None:
    text = Elements(render_report(without_answers(evidence))).text
    assert "were not kept" in text
    rejected = replace(evidence, chosen=None, rows=[replace(row, verdict="failed", reason="no") for row in ROWS])
    assert "no candidate passed" in Elements(render_report(rejected)).text


def test_a_broken_or_absent_picture_is_a_line_and_not_the_end(tmp_path: Path) -> None:
    own = classifier_evidence(tmp_path)
    own.paths[0].write_bytes(b"\xff\xd8 no picture")
    own.paths[1].unlink()
    text = Elements(render_report(own)).text
    assert "cannot be shown: " in text
    assert "No such file or directory" in text


@pytest.mark.parametrize("size_hw", [(1, 1), (9, 3000), (1500, 2000)], ids=str)
def test_a_picture_of_noise_is_small(tmp_path: Path, size_hw: tuple[int, int]) -> None:
    path = tmp_path / "noise.png"
    PIL.Image.fromarray(noise_image(1, size_hw)).save(path, compress_level=0)
    picture = embed_picture(path, ColourConfig(), lambda size: None)
    assert 0 < len(picture.source) < MOST_BYTES * 4 / 3 + 100


def test_a_picture_carries_nothing_of_its_file_but_pixels(tmp_path: Path) -> None:
    exif = PIL.Image.Exif()
    exif[0x010E], exif[0x0112] = "a secret place", 6
    PIL.Image.fromarray(np.zeros((20, 40, 3), np.uint8)).save(tmp_path / "a.jpg", exif=exif)
    picture = embed_picture(tmp_path / "a.jpg", ColourConfig(), lambda size: None)
    assert (picture.width, picture.height) == (20, 40), "upright"
    assert "YSBzZWNyZXQ" not in picture.source  # of base64, `a secret`


@pytest.fixture
def built(tiny_classifier: TinyModel, tmp_path: Path) -> Path:
    """A copy of the exports of a tiny model, as a build leaves them."""
    folder = tiny_classifier.folders["openvino"]
    shutil.copytree(folder.parent, tmp_path / "exports" / folder.parent.name)
    return tmp_path / "exports"


def rows_of(model: TinyModel, exports: Path) -> list[Candidate]:
    rows = [read_row(new_trial(model.recipe, exports, (name, "fp32"), "cpu"), 1.0) for name in ("eager", "openvino")]
    return [rows[0], replace(rows[1], verdict="chosen", images_per_s={"1": 10.0})]


def test_a_build_leaves_a_report_of_the_answers_that_it_kept(tiny_classifier: TinyModel, built: Path) -> None:
    path = report_build(tiny_classifier.recipe, built, rows_of(tiny_classifier, built))
    assert path == built / tiny_classifier.recipe.name / "report.html"
    found = Elements(path.read_text(encoding="utf-8"))
    assert len([tag for tag, _ in found.found if tag == "img"]) == 4
    assert "No answer to any of the 4 pictures changed." in found.text


def test_answers_of_another_artifact_are_not_shown(tiny_classifier: TinyModel, built: Path) -> None:
    for name in ("eager-fp32", "openvino-fp32"):
        path = built / tiny_classifier.recipe.name / name / "verification.json"
        path.write_text(re.sub(r'"artifact_sha256": "\w+"', '"artifact_sha256": "0"', path.read_text()))
    report = report_build(tiny_classifier.recipe, built, rows_of(tiny_classifier, built))
    assert report is not None
    assert "were not kept" in report.read_text(encoding="utf-8")


def test_a_report_that_cannot_be_written_is_one_warning_and_no_end(
    tiny_classifier: TinyModel, built: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (built / tiny_classifier.recipe.name / "report.html").mkdir()
    assert report_build(tiny_classifier.recipe, built, rows_of(tiny_classifier, built)) is None
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: tiny_classification: no report of this build: ")


def test_a_build_that_ends_with_its_reference_shows_what_that_answers(tiny_classifier: TinyModel, built: Path) -> None:
    proof = built / tiny_classifier.recipe.name / "eager-fp32" / "verification.json"
    proof.write_bytes(orjson.dumps({**read_json(proof), "passed": False, "failures": ["one class only"]}))
    path = report_refused(tiny_classifier.recipe, built, began=0.0)
    assert path is not None
    page = path.read_text(encoding="utf-8")
    assert "one class only" in page
    assert page.count("<img ") == 4
    later = proof.stat().st_mtime + 1
    assert report_refused(tiny_classifier.recipe, built, later) is None, "the answers are of a build before"


def test_an_archive_shows_its_one_picture_and_with_images_those(
    archive: Path, run_here: RunHere, tmp_path: Path
) -> None:
    report = tmp_path / "own.html"
    assert run_here("inspect_archive.py", archive, "--report", report).stdout == f"{report}\n"
    assert report.read_text(encoding="utf-8").count("<img ") == 1
    for index, name in enumerate(("cat", "dog")):
        (tmp_path / "photos" / name).mkdir(parents=True)
        PIL.Image.fromarray(noise_image(index, (32, 32))).save(tmp_path / "photos" / name / "a.png")
    images = ("--images", tmp_path / "photos", "--labels", "folders")
    assert run_here("inspect_archive.py", archive, "--report", report, *images).returncode == 0
    text = Elements(report.read_text(encoding="utf-8")).text
    assert "2 images, photos" in text
    assert "By class" in text


def test_images_without_a_report_are_refused(archive: Path, run_here: RunHere) -> None:
    refused = run_here("inspect_archive.py", archive, "--images", "photos")
    assert refused.returncode == 2
    assert "belong to --report" in refused.stderr


def test_figures_by_class_survive_the_archive(tmp_path: Path) -> None:
    found = detector_evidence(tmp_path).main.by_class
    assert found is not None
    path = tmp_path / "by_class.json"
    path.write_text(found.model_dump_json(exclude_none=True))
    assert type(found).model_validate(read_json(path)) == found
