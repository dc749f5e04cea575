import numpy as np
import PIL.Image
import pytest
from fakes import noise_image
from pycocotools import mask as coco_masks

from vision_serving.answers.drawing import (
    MAX_PIXELS,
    MAX_ROWS,
    MAX_SIDE,
    MIN_HEIGHT,
    MIN_SIDE,
    class_colour,
    draw_prediction,
    ink_on,
    picture_scale,
)
from vision_serving.answers.instance_drawing import read_counts
from vision_serving.answers.label_placement import contrast
from vision_serving.predictions import (
    Classification,
    ClassScore,
    Detection,
    Detections,
    ImageSize,
    KeypointDetection,
    MaskDetection,
    PolygonDetection,
    RunLengths,
)
from vision_serving.results.masks import compress_counts

GRAY = (120, 120, 120)
BOX = (100.0, 120.0, 300.0, 260.0)


def gray(width: int, height: int) -> PIL.Image.Image:
    return PIL.Image.new("RGB", (width, height), GRAY)


def detections(*boxes: tuple[float, float, float, float], size: tuple[int, int], label: str = "cat") -> Detections:
    found = tuple(Detection(number, label, 0.5, box) for number, box in enumerate(boxes))
    return Detections(found, ImageSize(*size))


def classes(count: int, label: str = "cat") -> Classification:
    return Classification(tuple(ClassScore(number, label, 1 / count) for number in range(count)))


@pytest.mark.parametrize(
    ("size", "drawn"),
    [
        ((640, 427), (640, 427)),
        ((32, 32), (320, 320)),
        ((16, 32), (320, 640)),
        ((6000, 4000), (1732, 1155)),
        ((2000, 1000), (2000, 1000)),
        ((2048, 900), (2048, 900)),
        ((6000, 32), (2048, MIN_HEIGHT)),
        ((32, 6000), (MIN_SIDE, 2048)),
        ((16384, 1), (2048, MIN_HEIGHT)),
        ((1, 1), (320, 320)),
    ],
    ids=str,
)
def test_a_picture_is_drawn_at_a_size_that_can_be_read_and_sent(size: tuple[int, int], drawn: tuple[int, int]) -> None:
    box = (0.0, 0.0, size[0] / 2, size[1] / 2)
    assert draw_prediction(gray(*size), detections(box, size=size)).size == drawn


@pytest.mark.parametrize("size", [(640, 427), (6000, 4000), (1, 16384), (7071, 7071), (33, 4000), (1, 1)], ids=str)
def test_no_picture_is_larger_than_the_bounds(size: tuple[int, int]) -> None:
    width, height = (side * picture_scale(*size) for side in size)
    assert max(width, height) <= MAX_SIDE
    assert width * height <= MAX_PIXELS + 1
    assert min(width, height) <= max(MIN_SIDE, *size)


@pytest.mark.parametrize(
    ("size", "scale"), [((640, 427), 1), ((100, 80), 4), ((4000, 2000), 0.5)], ids=["as it is", "larger", "smaller"]
)
def test_a_box_is_framed_in_the_colour_of_its_class(size: tuple[int, int], scale: float) -> None:
    box = tuple(share * side for share, side in zip((0.25, 0.5, 0.75, 0.9), size * 2, strict=True))
    drawn = np.asarray(draw_prediction(gray(*size), detections(box, size=size)))  # type: ignore[arg-type]
    x1, y1, x2, y2 = (round(side * scale) for side in box)
    middle_x, middle_y = (x1 + x2) // 2, (y1 + y2) // 2
    for x, y in [(middle_x, y1), (middle_x, y2 - 1), (x1, middle_y), (x2 - 1, middle_y)]:
        assert tuple(drawn[y, x]) == class_colour(0)
    assert tuple(drawn[middle_y, middle_x]) == GRAY


def test_a_frame_can_be_seen_on_its_own_colour() -> None:
    picture = PIL.Image.new("RGB", (400, 400), class_colour(0))
    drawn = np.asarray(draw_prediction(picture, detections(BOX, size=(400, 400))))
    assert tuple(drawn[200, 99]) == ink_on(class_colour(0))


def test_a_picture_that_was_decoded_smaller_has_its_boxes_where_they_belong() -> None:
    drawn = np.asarray(draw_prediction(gray(400, 400), detections((400, 400, 1200, 1200), size=(1600, 1600))))
    assert tuple(drawn[200, 100]) == class_colour(0)


@pytest.mark.parametrize(
    "box",
    [(10, 10, 10, 10), (0, 0, 400, 400), (399.99, 399.99, 400, 400), (400, 400, 400, 400), (0, 50, 400, 50)],
    ids=["a point", "everything", "the last pixel", "past the last pixel", "a line"],
)
def test_any_box_can_be_drawn(box: tuple[float, float, float, float]) -> None:
    drawn = np.asarray(draw_prediction(gray(400, 400), detections(box, size=(400, 400))))
    assert (drawn == class_colour(0)).all(axis=2).any()


@pytest.mark.parametrize("label", ["cat", "word " * 500, "猫", "", "\udcff", "two\nlines"], ids=ascii)
@pytest.mark.parametrize("size", [(32, 32), (640, 427), (3000, 20)], ids=str)
def test_any_label_can_be_drawn_at_any_size(label: str, size: tuple[int, int]) -> None:
    box = (0.0, 0.0, float(size[0]), float(size[1]))
    draw_prediction(gray(*size), detections(box, box, size=size, label=label))
    draw_prediction(gray(*size), classes(2, label))


FIGURE = (100.0, 120.0, 300.0, 120.0, 300.0, 260.0, 100.0, 260.0)  # the outline of BOX
INSIDE = np.zeros((400, 600), np.uint8)
INSIDE[120:260, 100:300] = 1


def drawn_pixel(detection: Detection, place: tuple[int, int], size: tuple[int, int] = (600, 400)) -> object:
    return draw_prediction(gray(*size), Detections((detection,), ImageSize(600, 400))).getpixel(place)


@pytest.mark.parametrize("form", ["run lengths", "polygons"])
@pytest.mark.parametrize("factor", [1, 2], ids=["its own size", "decoded larger"])
def test_a_mask_tints_what_it_covers_and_nothing_else(form: str, factor: int) -> None:
    text = coco_masks.encode(np.asfortranarray(INSIDE))["counts"].decode()
    detection = {
        "run lengths": MaskDetection(3, "cat", 0.5, (0, 0, 600, 400), RunLengths((400, 600), text)),
        "polygons": PolygonDetection(3, "cat", 0.5, (0, 0, 600, 400), (FIGURE,)),
    }[form]
    tint = tuple(round(0.4 * own + 0.6 * gray) for own, gray in zip(class_colour(3), GRAY, strict=True))
    size = (600 * factor, 400 * factor)
    for x, y, covered in ((200, 190, True), (110, 250, True), (290, 130, True), (90, 190, False), (200, 270, False)):
        found = drawn_pixel(detection, (x * factor, y * factor), size)
        assert found == pytest.approx(tint if covered else GRAY, abs=2)


def test_run_lengths_are_read_as_they_are_written() -> None:
    counts = np.array([0, 7, 500_000, 3, 12, 1_000_000, 33, 1])
    assert read_counts(compress_counts(counts)) == counts.tolist()


def test_keypoints_are_dots_and_rings_where_they_are_unsure() -> None:
    points = ((200.0, 190.0, 0.9), (240.0, 190.0, 0.2))
    detection = KeypointDetection(3, "person", 0.5, BOX, points)
    assert drawn_pixel(detection, (200, 190)) == class_colour(3)
    assert drawn_pixel(detection, (240, 190)) == ink_on(class_colour(3))
    assert drawn_pixel(detection, (220, 190)) == GRAY


@pytest.mark.parametrize(
    "detection",
    [
        MaskDetection(0, "cat", 0.5, BOX, None),
        PolygonDetection(0, "cat", 0.5, BOX, None),
        PolygonDetection(0, "cat", 0.5, BOX, ()),
        PolygonDetection(0, "cat", 0.5, BOX, ((-9.0, -9.0, 9.0, -9.0, 9.0, 900.0), (0.0, 0.0, 0.01, 0.0, 0.0, 0.01))),
        KeypointDetection(0, "cat", 0.5, BOX, None),
        KeypointDetection(0, "cat", 0.5, BOX, ((-50.0, 9000.0, 1.0),)),
    ],
    ids=["no mask", "no outlines", "an empty mask", "beyond the picture", "no keypoints", "a point beyond"],
)
def test_what_a_model_may_say_of_an_object_can_be_drawn(detection: Detection) -> None:
    assert drawn_pixel(detection, (200, 190)) == GRAY


def test_nothing_found_leaves_the_picture_as_it_is() -> None:
    picture = PIL.Image.fromarray(noise_image(0, (400, 500)))
    assert draw_prediction(picture, detections(size=(500, 400))).tobytes() == picture.tobytes()


def test_the_given_picture_is_not_drawn_on() -> None:
    picture = gray(400, 400)
    draw_prediction(picture, detections(BOX, size=(400, 400)))
    assert picture.tobytes() == gray(400, 400).tobytes()


def test_a_thousand_boxes_are_drawn() -> None:
    boxes = [(float(i % 300), float(i // 3), i % 300 + 50.0, i // 3 + 40.0) for i in range(1000)]
    draw_prediction(gray(400, 400), detections(*boxes, size=(400, 400)))


def test_classes_stand_below_the_picture_which_is_left_as_it_is() -> None:
    picture = PIL.Image.fromarray(noise_image(0, (400, 500)))
    drawn = draw_prediction(picture, classes(3))
    assert drawn.width == 500
    assert drawn.height > 400
    assert drawn.crop((0, 0, 500, 400)).tobytes() == picture.tobytes()


def test_a_bar_is_as_long_as_its_score() -> None:
    drawn = np.asarray(draw_prediction(gray(600, 400), classes(4)))
    bar = (drawn == class_colour(0)).all(axis=2).sum(axis=1).max()
    assert bar == pytest.approx(0.25 * 600, rel=0.05)


def test_many_classes_are_counted_and_not_drawn() -> None:
    few, many = (draw_prediction(gray(400, 400), classes(count)) for count in (MAX_ROWS, 1000))
    assert many.height - few.height < 40


def test_a_class_always_has_its_colour_and_ink_that_can_be_read_on_it() -> None:
    colours = [class_colour(class_id) for class_id in range(1000)]
    assert min(contrast(ink_on(colour), colour) for colour in colours) >= 4.5
    assert len(set(colours[:100])) == 100
    assert class_colour(7) == class_colour(7)
