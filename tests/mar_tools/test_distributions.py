"""In which bin what is counted, and that each image counts 1."""

import pytest

from mar_tools.distributions import NOTHING, Distributions, SeenImage, count_images, name_bin, name_bins


@pytest.mark.parametrize(
    ("part", "value", "name"),
    [
        ("scores", 0.0, "0-0.2"),
        ("scores", 0.2, "0-0.2"),
        ("scores", 0.201, "0.2-0.4"),
        ("scores", 1.0, "0.99-1"),
        ("sizes", 1, "0-64"),
        ("sizes", 224, "129-256"),
        ("sizes", 10_000, "4097+"),
        ("counts", 0, "0"),
        ("counts", 2, "2"),
        ("counts", 3, "3-4"),
        ("counts", 100, "17+"),
    ],
)
def test_a_value_is_in_its_bin(part: str, value: float, name: str) -> None:
    assert name_bin(part, value) == name
    assert name in name_bins(part)


def test_detections_share_the_one_of_their_image() -> None:
    answers: list[list[tuple[int, float]]] = [[(1, 0.9)] * 10, [(2, 0.5)], []]
    found = count_images([SeenImage(scores, len(scores)) for scores in answers])
    assert found.parts["classes"] == pytest.approx({"1": 1, "2": 1, NOTHING: 1})
    assert found.parts["scores"] == pytest.approx({"0.8-0.9": 1, "0.4-0.6": 1, NOTHING: 1})
    assert found.parts["counts"] == {"9-16": 1, "1": 1, "0": 1}


def test_what_no_image_has_is_no_part() -> None:
    assert count_images([SeenImage(longest_side=10)]).parts == {"sizes": {"0-64": 1}}
    assert count_images([]) == Distributions(0, {})


def test_what_is_stored_is_read_again() -> None:
    found = count_images([SeenImage([(3, 0.5), (4, 0.7), (5, 0.7)], 3, 100, "PNG")])
    again = Distributions.from_json(found.to_json())
    assert again.images == 1
    assert again.parts["scores"] == pytest.approx(found.parts["scores"], abs=1e-3)


@pytest.mark.parametrize("document", [None, {}, [], {"images": "many"}, {"images": 1, "scores": [1]}])
def test_what_is_no_distribution_is_refused(document: object) -> None:
    with pytest.raises((KeyError, TypeError, ValueError, AttributeError)):
        Distributions.from_json(document)  # type: ignore[arg-type]
