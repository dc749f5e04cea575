import pytest

from vision_serving.errors import InvalidOptionError
from vision_serving.labels import find_class_id

LABELS = [f"label {number}" for number in range(100)]


@pytest.mark.parametrize(("wanted", "class_id"), [("label 7", 7), ("42", 42), (42, 42), ("007", 7)])
def test_a_class_goes_by_its_label_or_its_id(wanted: int | str, class_id: int) -> None:
    assert find_class_id(wanted, LABELS, "class_filter") == class_id


@pytest.mark.parametrize("wanted", ["label", "100", -1, "00000000000042", "9" * 5000, "²"])
def test_what_is_neither_is_refused(wanted: int | str) -> None:
    with pytest.raises(InvalidOptionError, match=r"class_filter: .* is neither a label of this model"):
        find_class_id(wanted, LABELS, "class_filter")
