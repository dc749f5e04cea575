"""What a training takes from a folder, and how it divides it."""

import os
from collections import Counter
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from mar_tools.training.folders import read_class_folders
from mar_tools.training.splitting import SHARES, check_same_split, read_split, split_pictures, write_split
from vision_serving.errors import ConfigError


def draw(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(np.random.default_rng(seed).integers(0, 255, (8, 8, 3), dtype=np.uint8)).save(path)


def fill(folder: Path, counts: dict[str, int]) -> Path:
    for number, (label, count) in enumerate(counts.items()):
        for index in range(count):
            draw(folder / label / f"{index:03}.png", 1000 * number + index)
    return folder


def test_classes_are_the_folders_in_order_of_their_names(tmp_path: Path) -> None:
    found = read_class_folders(fill(tmp_path, {"rose": 3, "10": 4, "daisy": 5}))
    assert list(found.labels) == ["10", "daisy", "rose"]
    assert Counter(picture.class_id for picture in found.pictures) == {0: 4, 1: 5, 2: 3}


def test_files_that_are_no_pictures_are_named_and_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(tmp_path, {"a": 3, "b": 3})
    (tmp_path / "a" / "broken.jpg").write_bytes(b"\xff\xd8\xff no picture")
    found = read_class_folders(tmp_path)
    assert [path.name for path in found.left_out] == ["broken.jpg"]
    assert "left out: 1 files" in capsys.readouterr().err


def test_a_picture_in_two_classes_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(tmp_path, {"a": 4, "b": 4})
    (tmp_path / "b" / "again.png").write_bytes((tmp_path / "a" / "000.png").read_bytes())
    read_class_folders(tmp_path)
    assert "1 pictures lie in several classes" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("places", "message"),
    [
        ({}, "expected two or more"),
        ({"one": 3}, "1 folders of classes"),
        ({"train/a": 3, "train/b": 3, "flowers": 3}, "'flowers'"),
    ],
)
def test_a_folder_without_classes_is_refused(tmp_path: Path, places: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_class_folders(fill(tmp_path, places))


def test_a_class_is_divided_in_its_shares(tmp_path: Path) -> None:
    split = split_pictures(read_class_folders(fill(tmp_path, {"a": 40, "b": 20})), tmp_path / "split.csv", seed=1)
    for class_id, total in ((0, 40), (1, 20)):
        counts = {part: sum(each.class_id == class_id for each in pictures) for part, pictures in split.items()}
        assert counts == {"train": total - 2 * round(0.15 * total)} | {part: round(0.15 * total) for part in SHARES}


def test_a_class_of_too_few_pictures_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="1 of 2 classes have no picture for the part 'train': few"):
        split_pictures(read_class_folders(fill(tmp_path, {"few": 2, "many": 20})), tmp_path / "split.csv", seed=0)


def test_copies_of_a_picture_are_in_one_part(tmp_path: Path) -> None:
    fill(tmp_path, {"a": 10, "b": 10})
    for number in range(30):
        (tmp_path / "a" / f"copy{number}.png").write_bytes((tmp_path / "a" / "000.png").read_bytes())
    split = split_pictures(read_class_folders(tmp_path), tmp_path / "split.csv", seed=3)
    holding = [part for part, pictures in split.items() if any("copy" in each.path.name for each in pictures)]
    assert len(holding) == 1


def test_parts_of_the_folder_are_kept_and_the_missing_one_comes_from_train(tmp_path: Path) -> None:
    fill(tmp_path, {"train/a": 20, "train/b": 20, "valid/a": 5, "valid/b": 5})
    split = split_pictures(read_class_folders(tmp_path), tmp_path / "split.csv", seed=0)
    assert {part: len(pictures) for part, pictures in split.items()} == {"train": 34, "validation": 10, "test": 6}
    assert all(each.path.is_relative_to(tmp_path / "valid") for each in split["validation"])


def test_a_copy_of_a_test_picture_does_not_train(tmp_path: Path) -> None:
    fill(tmp_path, {"train/a": 20, "train/b": 20, "test/a": 5, "test/b": 5})
    leaked = tmp_path / "train" / "a" / "leaked.png"
    leaked.write_bytes((tmp_path / "test" / "a" / "000.png").read_bytes())
    split = split_pictures(read_class_folders(tmp_path), tmp_path / "split.csv", seed=0)
    assert leaked in [each.path for each in split["test"]]


def test_a_kept_division_stays_when_pictures_come(tmp_path: Path) -> None:
    data, kept = tmp_path / "data", tmp_path / "split.csv"
    first = split_pictures(read_class_folders(fill(data, {"a": 20, "b": 20})), kept, seed=0)
    write_split(first, data, kept)
    draw(data / "a" / "new.png", 77)
    again = split_pictures(read_class_folders(data), kept, seed=5)
    parts = {each.path: part for part, pictures in again.items() for each in pictures}
    assert all(parts[each.path] == part for part, pictures in first.items() for each in pictures)
    assert len(parts) == 41


def test_a_file_that_is_no_division_is_refused(tmp_path: Path) -> None:
    kept = tmp_path / "split.csv"
    kept.write_text("file,part\na.png,train\n")
    with pytest.raises(ConfigError, match="remove it to divide anew"):
        read_split(kept)


def test_hidden_folders_are_no_classes(tmp_path: Path) -> None:
    fill(tmp_path, {"train/a": 3, "train/b": 3, "train/.ipynb_checkpoints": 2, ".cache": 1})
    assert list(read_class_folders(tmp_path).labels) == ["a", "b"]


def test_a_class_that_no_label_file_can_name_is_refused(tmp_path: Path) -> None:
    fill(tmp_path, {"a": 3, "b": 3})
    os.rename(os.fsencode(tmp_path / "b"), os.fsencode(tmp_path) + b"/\xe9t\xe9")
    with pytest.raises(ConfigError, match="no UTF-8; rename it"):
        read_class_folders(tmp_path)


def test_a_division_names_pictures_whose_names_are_no_utf_8(tmp_path: Path) -> None:
    data, kept = fill(tmp_path / "data", {"a": 5, "b": 5}), tmp_path / "split.csv"
    os.rename(os.fsencode(data / "a" / "000.png"), os.fsencode(data) + b"/a/\xe9t\xe9.png")
    split = split_pictures(read_class_folders(data), kept, seed=0)
    write_split(split, data, kept)
    assert split_pictures(read_class_folders(data), kept, seed=1) == split
    check_same_split(split, data, kept)


@pytest.mark.parametrize("change", ["new", "gone", "moved"])
def test_a_training_goes_on_with_the_pictures_that_it_began_with(change: str, tmp_path: Path) -> None:
    data, kept = fill(tmp_path / "data", {"a": 9, "b": 9}), tmp_path / "split.csv"
    write_split(split_pictures(read_class_folders(data), kept, seed=0), data, kept)
    if change == "new":
        draw(data / "a" / "new.png", 77)
    elif change == "gone":
        (data / "a" / "000.png").unlink()
    else:
        (data / "a").rename(data / "c")
    split = split_pictures(read_class_folders(data), kept, seed=0)
    with pytest.raises(ConfigError, match=r"--resume: the pictures in .* have changed"):
        check_same_split(split, data, kept)
