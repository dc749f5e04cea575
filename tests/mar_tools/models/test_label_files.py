"""Labels in the forms that trainings leave them."""

from pathlib import Path

import pytest

from mar_tools.models.label_files import read_labels_file
from vision_serving.errors import ConfigError

CATS = ["cat", "dog"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("l.json", '["cat", "dog"]'),
        ("l.json", '{"0": "cat", "1": "dog"}'),
        ("l.json", '{"1": ["n02085620", "dog"], "0": ["n02123045", "cat"]}'),
        ("class_to_idx.json", '{"dog": 1, "cat": 0}'),
        ("config.json", '{"model_type": "vit", "id2label": {"0": "cat", "1": "dog"}, "label2id": {"cat": 0}}'),
        ("classes.txt", "cat\ndog\n"),
        ("coco.names", "\ufeffcat \r\ndog\r\n\r\n"),
        ("no_suffix", "cat\ndog"),
        ("clsidx_to_labels.txt", "{0: 'cat',\n 1: 'dog'}"),
        ("data.yaml", "path: x\nnc: 2\nnames: [cat, dog]\n"),
        ("data.yml", "train: images\nnames:\n  0: cat\n  1: dog\n"),
        ("list.yaml", "- cat\n- dog\n"),
    ],
)
def test_each_form_gives_the_labels_in_the_order_of_the_classes(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    assert read_labels_file(tmp_path / name) == CATS


def test_numbers_are_in_the_order_of_numbers(tmp_path: Path) -> None:
    numbers = [10, 2, 0, 1, 3, 4, 5, 6, 7, 8, 9]
    (tmp_path / "l.yaml").write_text("names:\n" + "".join(f"  {number}: n{number}\n" for number in numbers))
    assert read_labels_file(tmp_path / "l.yaml") == [f"n{number}" for number in range(11)]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("l.txt", "cat\n\ndog\n", "line 2 is empty"),
        ("l.txt", "", "expected a list of labels"),
        ("l.txt", "ca\x07t\n", "class 0 .* control character U\\+0007 at place 2"),
        ("l.txt", "cat\nd\tog\n", "class 1 .* control character U\\+0009 at place 1"),
        ("l.json", '["cat", "dog\\n"]', "class 1 .* U\\+000A"),
        ("l.json", '["\\u202egod"]', "U\\+202E at place 0"),
        ("l.yaml", "nc: 3\nnames: [cat, dog]\n", "`nc` says 3 classes, and `names` has 2"),
        ("l.json", '{"cat": 0, "dog": 0}', "two labels have the same number"),
        ("l.json", '{"cat": 1, "dog": 2}', "'0' is missing"),
        ("l.json", '{"names": {"0": "cat", "2": "dog"}}', "'1' is missing"),
        ("l.txt", "{0: 'cat'", "begins as a list or table and is none"),
        ("l.yaml", "names: 5", "expected a list of labels"),
        ("l.yaml", "names: [se, no, dk]", "class 1 is False, which is no text: quote it"),
        ("l.yaml", "names: {0: 7}", "class 0 is 7, which is no text: quote it"),
    ],
)
def test_what_is_no_list_of_labels_is_refused_with_where(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError, match=message):
        read_labels_file(tmp_path / name)


def test_a_text_of_another_encoding_is_refused(tmp_path: Path) -> None:
    (tmp_path / "l.txt").write_bytes("gr\u00fcn".encode("latin-1"))
    with pytest.raises(ConfigError, match="byte 2 is not UTF-8"):
        read_labels_file(tmp_path / "l.txt")
