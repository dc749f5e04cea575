import sys
from pathlib import Path
from typing import Any

import orjson
import pytest
import torch
from fakes import RED, png
from report_evidence import config_of
from torchmetrics.classification import MultilabelAveragePrecision
from torchmetrics.detection import MeanAveragePrecision

from mar_tools.models.recipes import VerificationRecipe
from mar_tools.verification.accuracy import accuracy_drop, find_hits, import_pycocotools, measure_accuracy
from mar_tools.verification.labelled import (
    Truth,
    VerificationImages,
    name_classes,
    name_folders,
    read_folder_names,
    read_verification_images,
)
from vision_serving.errors import ConfigError

LABELS = ["cat", "dog", "crane", "crane"]  # the bird and the machine


def write_images(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(png(RED))
    return folder


def write_json(path: Path, content: object) -> Path:
    path.write_bytes(orjson.dumps(content))
    return path


def read(activation: str | None = None, **verification: object) -> VerificationImages:
    config = config_of("classification", activation=activation)
    return read_verification_images(VerificationRecipe.model_validate(verification), config, LABELS)


def class_ids_of(images: VerificationImages) -> dict[str, list[int]]:
    assert images.truth is not None
    return {path.name: truth["class_ids"].tolist() for path, truth in zip(images.paths, images.truth, strict=True)}


def shows(*class_ids: int) -> Truth:
    return {"class_ids": torch.tensor(class_ids, dtype=torch.int64)}


def test_without_labels_sixteen_photographs_verify() -> None:
    assert len(read().paths) == 16
    assert read().truth is None
    assert len(read(count=3).paths) == 3


def test_a_folder_is_named_after_a_label_or_a_class_id(tmp_path: Path) -> None:
    write_images(tmp_path, "dog/a.png", "cat/b.png", "cat/more/c.png", "3/d.png")
    images = read(images=tmp_path, labels="folders")
    assert class_ids_of(images) == {"a.png": [1], "b.png": [0], "c.png": [0], "d.png": [3]}


def test_a_count_takes_images_of_all_classes(tmp_path: Path) -> None:
    write_images(tmp_path, *(f"{name}/{name}{number}.png" for name in ("cat", "dog") for number in range(4)))
    assert sorted(class_ids_of(read(images=tmp_path, labels="folders", count=2)).values()) == [[0], [1]]


@pytest.mark.parametrize(
    "content",
    [{"n1": "cat", "n2": "3"}, {"0": ["n1", "tabby"], "3": ["n2", "crane"]}],
    ids=["folder to label or class id", "index_to_name.json"],
)
def test_folders_of_other_names_are_told_by_a_file(tmp_path: Path, content: dict[str, Any]) -> None:
    write_images(tmp_path / "images", "n1/a.png", "n2/b.png")
    names = write_json(tmp_path / "names.json", content)
    assert class_ids_of(read(images=tmp_path / "images", labels=names)) == {"a.png": [0], "b.png": [3]}


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["cow/a.png", "dog/a.png"], r"1 of 2 entries are no label or class id of this model: 'cow'; expected folders"),
        (["4/a.png"], "'4'"),
        (["a.png"], r"'a\.png'"),
        ([], "no such file or folder"),
    ],
    ids=["unknown", "no such class id", "an image in no folder", "no images"],
)
def test_folders_that_fit_no_label_are_named(tmp_path: Path, names: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read(images=write_images(tmp_path / "images", *names), labels="folders")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "not a readable JSON file"),
        (b"[]", 'expected a JSON object {"folder": "label"}, got list'),
        (b'{"n1": "cow"}', "'cow' is neither a label of this model nor a class id"),
        (None, "no such file"),
    ],
    ids=["broken", "list", "unknown label", "missing"],
)
def test_a_wrong_file_of_names_is_refused(tmp_path: Path, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / "names.json").write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        read_folder_names(tmp_path / "names.json", name_classes(LABELS))


def coco(**changes: Any) -> dict[str, Any]:
    return {
        "images": [{"id": 7, "file_name": "a.png", "width": 8, "height": 8}, {"id": 8, "file_name": "sub/b.png"}],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 18, "bbox": [1, 2, 3, 4], "area": 12, "iscrowd": 0},
            {"id": 2, "image_id": 7, "category_id": 17, "bbox": [0, 0, 8, 8], "iscrowd": 1},
        ],
        "categories": [{"id": 17, "name": "cat"}, {"id": 18, "name": "dog"}, {"id": 19, "name": "unused"}],
        **changes,
    }


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return write_images(tmp_path / "images", "a.png", "sub/b.png")


def test_boxes_of_a_coco_file_are_corners_with_class_ids(images: Path, tmp_path: Path) -> None:
    found = read(images=images, annotations=write_json(tmp_path / "coco.json", coco()))
    assert [path.name for path in found.paths] == ["a.png", "b.png"]
    assert found.truth is not None
    first, second = found.truth
    assert first["boxes"].tolist() == [[1, 2, 4, 6], [0, 0, 8, 8]]
    assert (first["labels"].tolist(), first["iscrowd"].tolist()) == ([1, 0], [0, 1])
    assert second["boxes"].shape == (0, 4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param(
            {"categories": [{"id": 17, "name": "cow"}, {"id": 18, "name": "dog"}]},
            "1 of 2 categories .*: 'cow'",
            id="unknown category",
        ),
        pytest.param(
            {"categories": []}, "2 of 2 categories are no labels of this model: 'category 17'", id="no categories"
        ),
        pytest.param(
            {"images": [{"id": 7, "file_name": "z.png"}]},
            r"1 of its 1 images are not in .*: 'z\.png'",
            id="missing image",
        ),
        pytest.param({"images": []}, "it has no images", id="no images"),
        pytest.param({"annotations": []}, "no boxes in it", id="no boxes"),
        pytest.param(
            {"images": [{"id": 8, "file_name": "sub/b.png"}]},
            "the 1 images to verify with have no boxes",
            id="no boxes in these images",
        ),
        pytest.param(
            {"annotations": [{"image_id": 7, "category_id": 17, "bbox": [1, 2]}]}, "annotations.0.bbox", id="half a box"
        ),
        pytest.param({"images": None}, "images", id="no list"),
    ],
)
def test_a_coco_file_that_does_not_fit_is_refused(
    images: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        read(images=images, annotations=write_json(tmp_path / "coco.json", coco(**changes)))


def test_a_folder_of_a_label_that_two_classes_have_means_both(tmp_path: Path) -> None:
    write_images(tmp_path, "crane/a.png", "2/b.png")
    assert class_ids_of(read(images=tmp_path, labels="folders")) == {"a.png": [2, 3], "b.png": [2]}


def test_each_class_of_a_shared_label_is_right() -> None:
    answers = [{"logits": torch.eye(4)[best]} for best in (2, 3, 0)]
    assert measure_accuracy("classification", answers, [shows(2, 3)] * 3)["top1"] == pytest.approx(2 / 3, abs=1e-6)
    assert find_hits(answers, [shows(2, 3)] * 3) == [True, True, False]


LISTED = {"a.png": [0, 1], "b.png": [], "c.png": [0]}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("json", '{"a.png": ["cat", "dog"], "sub": [], "c": "cat"}'),
        ("csv", "file,labels\na.png,cat dog\nsub/b.png,\nc.png,cat\n"),
        ("csv", "\ufeffImage;Labels\r\na.png;cat|1\r\nsub/b;\r\n\r\nc.png;0\r\n"),
        ("csv", 'file,labels\na.png,cat\na.png,dog\nsub,""\nc,"cat, 0"\n'),
        ("csv", "file,dog,cat\na.png,1,1\nsub/b.png,0,0\nc.png,0.0,1.0\n"),
        ("tsv", "file\tcat\na.png\t1\nsub/b.png\t\nc.png\t1\n"),
    ],
    ids=["object", "list", "of a spreadsheet", "a line for each label", "table", "table of one label"],
)
def test_a_file_says_which_labels_each_picture_shows(tmp_path: Path, name: str, content: str) -> None:
    folder = write_images(tmp_path / "images", "a.png", "sub/b.png", "c.png", "not listed.png")
    (tmp_path / f"labels.{name}").write_text(content, encoding="utf-8")
    expected = {**LISTED, "a.png": [0]} if content.startswith("file\tcat") else LISTED
    assert class_ids_of(read(images=folder, labels=tmp_path / f"labels.{name}", activation="sigmoid")) == expected


def test_folders_of_a_classifier_with_independent_scores_show_their_own_label(tmp_path: Path) -> None:
    write_images(tmp_path, "dog/a.png", "crane/b.png")
    found = read(images=tmp_path, labels="folders", activation="sigmoid")
    assert class_ids_of(found) == {"a.png": [1], "b.png": [2, 3]}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("json", "[]", "expected a JSON object"),
        ("json", '{"a.png": ["cow"]}', "a.png: 'cow' is neither a label of this model nor a class id"),
        ("json", '{"a.png": ["cat"], "z.png": []}', r"1 of 2 entries are no picture or folder in .*: 'z\.png'"),
        ("json", '{"a.png": []}', "the 1 images to verify with show no label at all"),
        ("csv", "", "expected a header such as"),
        ("csv", "file,labels\n", "expected a header such as"),
        ("csv", "file,labels\na.png,cat,dog\n", "line 2 has 3 cells, and the header has 2"),
        ("csv", "file,labels\na.png,cow\n", "'cow' is neither a label"),
        ("csv", "file,cat,dgo\na.png,1,0\n", "'dgo' in its header is no label of this model"),
        ("csv", "a.png,cat\nb.png,dog\n", "line 2: 'dog' is neither 0 nor 1"),
        ("csv", "file,cat\na.png,-1\n", "line 2: '-1' is neither 0 nor 1"),
        ("csv", None, "no such file"),
    ],
)
def test_a_file_of_pictures_that_does_not_fit_is_refused(
    tmp_path: Path, name: str, content: str | None, message: str
) -> None:
    folder, file = write_images(tmp_path / "images", "a.png", "b.png"), tmp_path / f"labels.{name}"
    if content is not None:
        file.write_text(content)
    with pytest.raises(ConfigError, match=message):
        read(images=folder, labels=file, activation="sigmoid")


def test_scores_that_exclude_each_other_have_one_label_a_picture(tmp_path: Path) -> None:
    folder, file = write_images(tmp_path / "images", "a.png", "b.png"), tmp_path / "labels.csv"
    file.write_text("file,labels\na.png,cat\nb.png,crane\n")
    assert class_ids_of(read(images=folder, labels=file)) == {"a.png": [0], "b.png": [2, 3]}
    file.write_text("file,labels\na.png,cat\nb.png,dog|cat\n")
    with pytest.raises(ConfigError, match=r"1 of 2 entries have no label or several: 'b\.png'.*activation: sigmoid"):
        read(images=folder, labels=file)


def test_a_model_without_labels_has_classes_from_its_folders_alone(tmp_path: Path) -> None:
    verification = VerificationRecipe(images=write_images(tmp_path, "a/x.png"), labels=tmp_path / "labels.csv")
    with pytest.raises(ConfigError, match="a model without labels takes `labels: folders`"):
        read_verification_images(verification, config_of("embedding"), [])


def test_accuracy_of_independent_scores_is_the_average_precision_of_torchmetrics() -> None:
    """With equal scores, and with a class that no picture shows, which does not count."""
    generator = torch.Generator().manual_seed(0)
    logits = (torch.randn(40, 5, generator=generator) * 3).round()
    present = (torch.rand(40, 5, generator=generator) < 0.3) & (torch.arange(5) != 3)
    seen = [{"logits": row, "thresholds": torch.full((5,), 0.5)} for row in logits]
    truth = [shows(*row.nonzero().flatten().tolist()) for row in present]
    kept = [0, 1, 2, 4]
    metric = MultilabelAveragePrecision(num_labels=4, thresholds=None)
    expected = float(metric(logits.sigmoid()[:, kept], present[:, kept].long()))
    assert 0.2 < expected < 0.6
    assert measure_accuracy("classification", seen, truth) == {"map": pytest.approx(expected, abs=1e-6)}


def test_accuracy_of_classes_is_the_share_of_hits() -> None:
    logits = torch.arange(7.0).repeat(4, 1)  # the best are 6, 5, 4, 3, 2
    truth = [shows(class_id) for class_id in (6, 6, 2, 1)]
    assert measure_accuracy("classification", [{"logits": row} for row in logits], truth) == {"top1": 0.5, "top5": 0.75}


def test_accuracy_of_boxes_is_coco_map() -> None:
    truth = {
        "boxes": torch.tensor([[0.0, 0.0, 10.0, 10.0], [20.0, 0.0, 30.0, 10.0]]),
        "labels": torch.tensor([1, 2]),
        "iscrowd": torch.tensor([0, 0]),
    }
    found = {
        "source_boxes": torch.tensor([[0.0, 0.0, 10.0, 10.0], [20.0, 0.0, 30.0, 7.0]]),  # IoU 1 and 0.7
        "scores": torch.tensor([0.9, 0.8]),
        "class_ids": torch.tensor([1, 2]),
    }
    accuracy = measure_accuracy("detection", [found], [truth])
    # class 1: all ten IoU thresholds; class 2: 0.50, 0.55, ... 0.65, and 0.70 as float32 rounds it
    assert accuracy["map_50"] == 1.0
    assert accuracy["map"] in (pytest.approx(0.7, abs=1e-6), pytest.approx(0.75, abs=1e-6))


def test_a_detector_that_finds_nothing_has_no_accuracy(capsys: pytest.CaptureFixture[str]) -> None:
    truth = {"boxes": torch.tensor([[0.0, 0.0, 10.0, 10.0]]), "labels": torch.tensor([1]), "iscrowd": torch.tensor([0])}
    found = {
        "source_boxes": torch.zeros(0, 4),
        "scores": torch.zeros(0),
        "class_ids": torch.zeros(0, dtype=torch.int64),
    }
    assert measure_accuracy("detection", [found], [truth]) == {"map": 0.0, "map_50": 0.0}
    assert capsys.readouterr().out == ""


def test_map_equals_that_of_torchmetrics() -> None:
    generator = torch.Generator().manual_seed(0)
    truth, found = [], []
    for _ in range(6):
        corners = torch.rand(8, 2, generator=generator) * 200
        boxes = torch.cat((corners, corners + 20 + torch.rand(8, 2, generator=generator) * 80), dim=1)
        class_ids, scores = torch.randint(0, 3, (8,), generator=generator), torch.rand(8, generator=generator)
        moved = boxes + torch.randn(8, 4, generator=generator) * 4
        truth.append({"boxes": boxes, "labels": class_ids, "iscrowd": (torch.arange(8) == 7).long()})
        found.append({"source_boxes": moved, "scores": scores, "class_ids": class_ids})
    metric = MeanAveragePrecision()
    names = {"source_boxes": "boxes", "scores": "scores", "class_ids": "labels"}
    metric.update([{names[key]: values for key, values in image.items()} for image in found], truth)
    expected = metric.compute()
    accuracy = measure_accuracy("detection", found, truth)
    assert 0.1 < accuracy["map"] < 0.95
    assert accuracy == {name: pytest.approx(float(expected[name]), abs=1e-6) for name in ("map", "map_50")}


def test_a_missing_package_is_named_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pycocotools.coco", None)
    with pytest.raises(ConfigError, match=r"'pycocotools': pip install .* -r requirements/evaluation\.txt"):
        import_pycocotools()


def test_a_drop_is_positive_where_the_candidate_is_worse() -> None:
    assert accuracy_drop({"top1": 0.8, "top5": 0.9}, {"top1": 0.75, "top5": 0.95}) == 0.05
    assert accuracy_drop({"map": 0.4, "map_50": 0.6}, {"map": 0.41, "map_50": 0.5}) == -0.01


def test_vectors_are_as_good_as_their_nearest_neighbours() -> None:
    vectors = [{"embedding": torch.tensor(row)} for row in ([1.0, 0.1], [5.0, 0.2], [0.1, 1.0], [0.9, 1.0])]
    truth = [shows(class_id) for class_id in (0, 0, 1, 0)]
    assert measure_accuracy("embedding", vectors, truth) == {"nearest1": 0.5}


def test_the_classes_of_a_model_without_labels_are_the_folders(tmp_path: Path) -> None:
    for name in ("b", "a"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.png").write_bytes(b"")
    (tmp_path / "notes.txt").write_text("")
    assert name_folders(tmp_path) == {"a": (0,), "b": (1,)}
