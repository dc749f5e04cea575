import base64
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
import torch
from conftest import MakeHandler
from fakes import BLUE, GREEN, POISON, RED, encode_image, new_context, png, solid_image
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from vision_serving.errors import (
    ImageDecodeError,
    InferenceError,
    InvalidOptionError,
    PayloadTooLargeError,
    RequestError,
)
from vision_serving.geometry import Region
from vision_serving.handler import VisionHandler
from vision_serving.options import MIN_TILE, ClassificationOptions, DetectionOptions
from vision_serving.pictures.decoding import Image
from vision_serving.pictures.tiles import check_tile_count, list_regions
from vision_serving.predictions import Box, Detection, Detections, ImageSize
from vision_serving.requests.payload import Payload
from vision_serving.results.outcome import ImageResult
from vision_serving.results.tile_merging import merge_tiles
from vision_serving.timings import StageTimings
from vision_serving.worker.service import TorchServeHandler

BLACK = (0, 0, 0)
MODEL = {"resize": {"mode": "letterbox", "size": [64, 64], "pad_value": 0}}
LEAST_SEEN = 30  # pixels of an object at model size


class SpotDetector:
    """Finds what is purely red, green or blue, one object of each; too few pixels of it are not seen. Padded outputs.

    Fails on a batch that holds a picture with POISON in it. Remembers the sizes of its batches.
    """

    device_types = ("cpu",)

    def __init__(self) -> None:
        self.batches: list[int] = []

    def infer(self, pixels: Tensor) -> dict[str, Tensor]:
        self.batches.append(len(pixels))
        if (pixels == torch.tensor(POISON)).all(dim=-1).any():
            raise ZeroDivisionError("deep inside a model")
        boxes, scores = torch.zeros(len(pixels), 3, 4), torch.zeros(len(pixels), 3)
        for (image, picture), class_id in itertools.product(enumerate(pixels), range(3)):
            rows, columns = ((picture[..., class_id] > 150) & (picture.sum(dim=-1) < 250)).nonzero().unbind(1)
            if len(rows) >= LEAST_SEEN:
                box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
                boxes[image, class_id] = torch.tensor([float(side) for side in box])
                scores[image, class_id] = 0.9
        class_ids = torch.arange(3).expand(len(pixels), 3)
        return {"boxes": boxes, "scores": scores, "class_ids": class_ids}


@pytest.fixture
def handler(make_handler: MakeHandler) -> TorchServeHandler:
    made = make_handler("detection", preprocessing=MODEL, max_images_per_inference=4)
    made.backend = SpotDetector()  # type: ignore[assignment]
    return made


def scene(size_hw: tuple[int, int], *objects: tuple[tuple[int, int, int], Region]) -> Image:
    image = solid_image(BLACK, size_hw)
    for colour, (x1, y1, x2, y2) in objects:
        image[y1:y2, x1:x2] = colour
    return image


def predict(handler: VisionHandler, *requests: Payload) -> list[ImageResult]:
    return [item for outcome in handler.predict(requests) for item in outcome.items]


def request(*images: Image, **options: Any) -> Payload:
    return Payload(tuple(encode_image(image) for image in images), options)


def found_in(item: ImageResult) -> dict[str, Box]:
    assert isinstance(item, Detections), item
    assert len({each.label for each in item.detections}) == len(item.detections), "an object is there twice"
    return {each.label: each.box for each in item.detections}


# Where tiles lie


@given(
    height=st.integers(1, 3000),
    width=st.integers(1, 3000),
    tile_size=st.integers(MIN_TILE, 1000),
    tile_overlap=st.floats(0, 0.5),
)
def test_tiles_cover_the_image_and_overlap_as_asked(
    height: int, width: int, tile_size: int, tile_overlap: float
) -> None:
    options = DetectionOptions(tile_size=tile_size, tile_overlap=tile_overlap)
    whole, *tiles = list_regions((height, width), options)
    assert whole == (0, 0, width, height)
    assert bool(tiles) == (max(height, width) > tile_size)
    for low, high, side in ((0, 2, width), (1, 3, height)):
        spans = sorted({(tile[low], tile[high]) for tile in tiles}) or [(0, side)]
        assert (spans[0][0], spans[-1][1]) == (0, side)
        assert all(end - start == min(tile_size, side) for start, end in spans) or not tiles
        for (_, end), (start, _) in itertools.pairwise(spans):
            assert end - start >= tile_size * tile_overlap - 1  # starts are whole pixels
    assert len(tiles) == len({(tile[0], tile[2]) for tile in tiles}) * len({(tile[1], tile[3]) for tile in tiles})


@pytest.mark.parametrize("options", [ClassificationOptions(), DetectionOptions()], ids=["classification", "no tiles"])
def test_without_tiles_the_model_sees_the_whole_image_alone(options: Any) -> None:
    assert list_regions((3000, 4000), options) == [(0, 0, 4000, 3000)]
    check_tile_count((3000, 4000), options, max_tiles=1, images=1)


@pytest.mark.parametrize(
    ("max_tiles", "images", "words"),
    [
        (48, 1, []),
        (47, 1, ["4000 x 3000", "48 tiles of 640", "overlap of 0.2", "the limit is 47; choose a larger tile_size"]),
        (96, 2, []),
        (64, 2, ["48 tiles", "the limit is 64 in a request, 32 for each of its 2 images"]),
    ],
    ids=["just enough", "one too many", "two images", "too many for one of two"],
)
def test_more_tiles_than_a_request_may_have_are_refused_with_the_number(
    max_tiles: int, images: int, words: list[str]
) -> None:
    options = DetectionOptions(tile_size=640)
    for size_hw in ((3000, 4000), (4000, 3000)):
        if not words:
            check_tile_count(size_hw, options, max_tiles, images)
            continue
        with pytest.raises(PayloadTooLargeError) as caught:
            check_tile_count(size_hw, options, max_tiles, images)
        assert [word for word in words[1:] if word not in str(caught.value)] == []


# What is found


def test_tiles_find_a_small_object_that_one_pass_misses(handler: VisionHandler) -> None:
    image = scene((256, 320), (RED, (200, 100, 208, 106)))
    once, tiled = predict(handler, request(image), request(image, tile_size=64))
    assert found_in(once) == {}
    assert found_in(tiled) == {"red": (200, 100, 208, 106)}


def test_an_object_that_several_tiles_see_is_told_once_and_whole(handler: VisionHandler) -> None:
    """Tiles of 64 with a step of 51.2 or less: 0-64, 43-107, 85-149, 128-192."""
    image = scene((192, 192), (RED, (50, 50, 62, 64)), (GREEN, (90, 90, 104, 106)), (BLUE, (136, 60, 148, 75)))
    (tiled,) = predict(handler, request(image, tile_size=64))
    assert found_in(tiled) == {"red": (50, 50, 62, 64), "green": (90, 90, 104, 106), "blue": (136, 60, 148, 75)}


def test_a_large_object_is_left_to_the_pass_over_the_whole_image(handler: VisionHandler) -> None:
    image = scene((256, 256), (RED, (20, 40, 220, 200)))
    (tiled,) = predict(handler, request(image, tile_size=64))
    assert found_in(tiled) == {"red": (20, 40, 220, 200)}


def test_an_object_at_the_border_of_the_image_is_not_taken_for_a_cut_one(handler: VisionHandler) -> None:
    image = scene((256, 256), (RED, (0, 120, 9, 130)), (GREEN, (246, 246, 256, 256)))
    (tiled,) = predict(handler, request(image, tile_size=64))
    assert found_in(tiled) == {"red": (0, 120, 9, 130), "green": (246, 246, 256, 256)}


def test_an_image_no_larger_than_a_tile_is_answered_as_without(handler: VisionHandler) -> None:
    image = scene((100, 90), (RED, (20, 40, 60, 80)))
    once, tiled = predict(handler, request(image), request(image, tile_size=100))
    assert tiled == once


def test_boxes_of_tiles_come_in_the_format_asked_for(handler: VisionHandler) -> None:
    image = scene((200, 400), (RED, (100, 50, 120, 60)))
    formats = {
        "xyxy": (100, 50, 120, 60),
        "xywh": (100, 50, 20, 10),
        "xyxyn": (0.25, 0.25, 0.3, 0.3),
        "xywhn": (0.25, 0.25, 0.05, 0.05),
    }
    requests = [request(image, tile_size=128, box_format=name) for name in formats]
    assert [found_in(item)["red"] for item in predict(handler, *requests)] == list(formats.values())


def test_tiles_of_an_upright_image_are_cut_after_it_was_turned(handler: VisionHandler) -> None:
    exif = (
        b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\x00\x01\x01\x12\x00\x03\x00\x00\x00\x01\x00\x06\x00\x00\x00\x00\x00\x00"
    )
    upright = scene((320, 192), (RED, (100, 200, 110, 212)))
    sideways = encode_image(np.rot90(upright), "PNG", exif=exif)
    (item,) = predict(handler, Payload((sideways,), {"tile_size": 64}))
    assert found_in(item) == {"red": (100, 200, 110, 212)}


# One request never hurts another


def test_tiles_run_in_batches_that_the_engine_takes(handler: VisionHandler) -> None:
    image = scene((192, 192))
    predict(handler, request(image, tile_size=64), request(image), request(image))
    assert isinstance(handler.backend, SpotDetector)
    assert handler.backend.batches == [2, 4, 4, 4, 4, 1]  # two whole images, then one of 16 tiles and itself


def test_a_tile_that_fails_fails_its_image_and_nobody_else(handler: VisionHandler) -> None:
    good = scene((192, 192), (RED, (50, 50, 60, 60)))
    bad = scene((192, 192), (RED, (50, 50, 60, 60)), (POISON, (140, 140, 150, 150)))
    items = predict(handler, request(good, bad, good, tile_size=64, tile_overlap=0), request(good, tile_size=64))
    assert [type(item) for item in items] == [Detections, InferenceError, Detections, Detections]


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        (Payload((b"garbage",), {"tile_size": 64}), ImageDecodeError),
        (Payload((png(RED, (999, 999)),), {"tile_size": 64}), PayloadTooLargeError),
    ],
    ids=["garbage", "too many tiles"],
)
def test_a_tiled_image_that_cannot_be_served_gets_its_own_error(
    handler: VisionHandler, bad: Payload, error: type[RequestError]
) -> None:
    good = request(scene((192, 192), (RED, (50, 50, 60, 60))), tile_size=64)
    items = predict(handler, good, bad, good)
    assert isinstance(items[1], error)
    assert found_in(items[0]) == found_in(items[2]) == {"red": (50, 50, 60, 60)}


def test_joining_that_fails_is_an_error_of_its_image(handler: VisionHandler, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> Detections:
        raise ZeroDivisionError

    monkeypatch.setattr("object_detection.merge_tiles", refuse)
    image = scene((192, 192), (RED, (20, 40, 160, 180)))
    tiled, once = predict(handler, request(image, tile_size=64), request(image))
    assert isinstance(tiled, InferenceError)
    assert list(found_in(once)) == ["red"]


def test_the_stages_are_timed_as_ever(handler: VisionHandler) -> None:
    with_tiles, without = StageTimings(), StageTimings()
    handler.predict([request(scene((192, 192)), tile_size=64)], with_tiles)
    handler.predict([request(scene((192, 192)))], without)
    assert list(with_tiles.milliseconds) == list(without.milliseconds)


@pytest.mark.parametrize("size", ["64", 64, "0", 31, "many", -5, 20_000, None])
def test_a_tile_size_out_of_bounds_is_422_that_names_them(handler: VisionHandler, size: object) -> None:
    (item,) = predict(handler, request(scene((9, 9)), tile_size=size))
    if str(size) in ("64", "0"):
        assert isinstance(item, Detections)
    else:
        assert isinstance(item, InvalidOptionError)
        assert "tile_size" in str(item)


def test_options_come_by_header_form_field_and_json(handler: TorchServeHandler) -> None:
    picture = encode_image(scene((200, 400), (RED, (100, 50, 120, 60))))
    wanted = {"tile_size": 128, "box_format": "xywh", "nms": "soft"}
    text = {**{name: str(value) for name, value in wanted.items()}, "class_thresholds": "red:0.3,1:0.6"}
    document = {
        "instances": [{"b64": base64.b64encode(picture).decode()}],
        "parameters": {**wanted, "class_thresholds": {"red": 0.3, "1": 0.6}},
    }
    rows: list[dict[str, Any]] = [
        {"body": picture},
        {"image": picture, **{name: value.encode() for name, value in text.items()}},
        {"body": orjson.dumps(document)},
    ]
    fields = {name: {"content-type": ""} for name in text}
    headers: list[dict[str, Any]] = [
        {"X-Inference-Options": "; ".join(f"{name}={value}" for name, value in text.items())},
        {"content-type": "multipart/form-data", "image": {"content-type": "image/png"}, **fields},
        {"content-type": "application/json"},
    ]
    raw, form, by_json = (orjson.loads(body) for body in handler.handle(rows, new_context(Path(), headers)))
    assert [each["box"] for each in raw["detections"]] == [[100, 50, 20, 10]]
    assert form == {"results": [raw]}
    assert by_json == {"predictions": [raw]}


# Merging


def part(*detections: tuple[float, int, Box]) -> Detections:
    return Detections(
        tuple(Detection(class_id, str(class_id), score, box) for score, class_id, box in detections),
        ImageSize(width=200, height=100),
    )


WHOLE, LEFT, RIGHT = (0, 0, 200, 100), (0, 0, 120, 100), (80, 0, 200, 100)
MIDDLE = (90.0, 40.0, 110.0, 60.0)


@pytest.mark.parametrize(
    ("left", "right", "options", "scores"),
    [
        ([], [], {}, []),
        ([(0.9, 0, MIDDLE)], [(0.8, 0, MIDDLE)], {}, [0.9]),
        ([(0.7, 0, MIDDLE)], [(0.8, 0, MIDDLE)], {"iou_threshold": 1.0}, [0.8]),
        ([(0.7, 0, MIDDLE)], [(0.8, 0, MIDDLE)], {"nms": "none"}, [0.8]),
        ([(0.7, 0, MIDDLE)], [(0.8, 0, MIDDLE)], {"nms": "soft"}, [0.8]),
        ([(0.7, 0, MIDDLE)], [(0.8, 1, MIDDLE)], {}, [0.8, 0.7]),
        ([(0.7, 0, MIDDLE)], [(0.8, 1, MIDDLE)], {"nms": "class_agnostic"}, [0.8]),
        ([(0.7, 0, MIDDLE), (0.6, 0, MIDDLE)], [], {}, [0.7, 0.6]),
        ([(0.9, 0, (90, 40, 120, 60))], [(0.5, 0, (90, 40, 130, 60))], {}, [0.5]),
        ([(0.9, 0, (90, 40, 118, 60))], [], {}, []),
        ([(0.9, 0, (0, 0, 20, 100))], [(0.8, 0, (190, 0, 200, 100))], {}, [0.9, 0.8]),
        ([(0.9, 0, (0, 0, 20, 20)), (0.7, 0, (30, 0, 50, 20))], [(0.8, 0, (190, 0, 200, 9))], {"max_detections": 2},
         [0.9, 0.8]),
    ],
    ids=["nothing", "seen twice", "a threshold of NMS that keeps all", "no NMS", "soft NMS", "other class",
         "any class", "of one tile", "cut box", "nearly cut", "borders of the image", "limit"],
)  # fmt: skip
def test_what_two_tiles_see_is_told_once_and_what_a_border_cuts_is_left_to_others(
    left: list[Any], right: list[Any], options: dict[str, Any], scores: list[float]
) -> None:
    merged = merge_tiles([part(), part(*left), part(*right)], [WHOLE, LEFT, RIGHT], DetectionOptions(**options))
    assert [each.score for each in merged.detections] == scores
    assert merged.image == ImageSize(width=200, height=100)


def test_an_image_that_is_one_tile_is_served_beside_any_number_of_others() -> None:
    check_tile_count((64, 64), DetectionOptions(tile_size=64), max_tiles=64, images=65)
