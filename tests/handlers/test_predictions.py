import pytest

from vision_serving.predictions import Box, Detection, Detections, ImageSize, convert_boxes


@pytest.mark.parametrize(
    ("box_format", "expected"),
    [
        ("xyxy", (10.1, 20.2, 110.4, 220.3)),
        ("xywh", (10.1, 20.2, 100.3, 200.1)),
        ("xyxyn", (0.02525, 0.0404, 0.276, 0.4406)),
        ("xywhn", (0.02525, 0.0404, 0.25075, 0.4002)),
    ],
)
def test_a_box_in_each_format(box_format: str, expected: Box) -> None:
    found = Detections((Detection(0, "cat", 0.5, (10.1, 20.2, 110.4, 220.3)),), ImageSize(width=400, height=500))
    converted = convert_boxes(found, box_format)
    assert converted.detections[0].box == expected
    assert (converted.detections[0].label, converted.image) == ("cat", found.image)
    assert getattr(converted, "box_format", "xyxy") == box_format


def test_relative_boxes_of_a_large_image_are_as_exact_as_those_in_pixels() -> None:
    found = Detections((Detection(0, "cat", 0.5, (0.01, 0, 15_999.99, 1)),), ImageSize(width=16_000, height=3000))
    box = convert_boxes(found, "xyxyn").detections[0].box
    assert [share * 16_000 for share in (box[0], box[2])] == pytest.approx([0.01, 15_999.99], abs=0.01)
