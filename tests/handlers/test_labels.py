import pytest

from vision_serving.errors import InvalidOptionError
from vision_serving.labels import find_class_ids, thresholds_by_class_id

LABELS = [f"label {number}" for number in range(100)]


@pytest.mark.parametrize(("wanted", "class_id"), [("label 7", 7), ("42", 42), (42, 42), ("007", 7)])
def test_a_class_goes_by_its_label_or_its_id(wanted: int | str, class_id: int) -> None:
    assert find_class_ids(wanted, LABELS, "class_filter") == (class_id,)


@pytest.mark.parametrize("wanted", ["label", "100", -1, "00000000000042", "9" * 5000, "²"])
def test_what_is_neither_is_refused(wanted: int | str) -> None:
    with pytest.raises(InvalidOptionError, match=r"class_filter: .* is neither a label of this model"):
        find_class_ids(wanted, LABELS, "class_filter")


def test_a_label_of_several_classes_means_all_of_them() -> None:
    labels = ["crane", "maillot", "crane", "crane"]
    assert find_class_ids("crane", labels, "class_filter") == (0, 2, 3)
    assert find_class_ids("2", labels, "class_filter") == (2,)
    assert thresholds_by_class_id({"crane": 0.5, "1": 0.1}, labels) == {0: 0.5, 2: 0.5, 3: 0.5, 1: 0.1}
