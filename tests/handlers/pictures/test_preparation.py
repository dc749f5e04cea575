import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from fakes import png

from vision_serving.config import ImageLimits, PreprocessingConfig, ResizeConfig
from vision_serving.errors import ImageDecodeError, InferenceError, InvalidOptionError, PayloadTooLargeError
from vision_serving.options import ClassificationOptions
from vision_serving.pictures.decoding import Image
from vision_serving.pictures.preparation import PixelBudget, Preparer, Source, list_sources
from vision_serving.pictures.resizing import ImageBatch, preprocess_images
from vision_serving.requests.contents import Pixels
from vision_serving.requests.payload import Payload
from vision_serving.timings import StageTimings

OPTIONS = ClassificationOptions()
CONFIG = PreprocessingConfig(resize=ResizeConfig(mode="exact", size=(4, 4)))
RED, GREEN = png((255, 0, 0)), png((0, 255, 0))
PATIENCE_S = 20.0


def preprocess(images: Sequence[Image]) -> ImageBatch:
    return preprocess_images(images, CONFIG)


def sources(*encoded: bytes) -> list[Source]:
    return list_sources([Payload(images=encoded)], [OPTIONS])


def test_images_of_requests_whose_options_are_wrong_are_left_out() -> None:
    payloads = [Payload(images=(RED,)), Payload(images=(RED, GREEN)), Payload(images=(GREEN,))]
    found = list_sources(payloads, [OPTIONS, InvalidOptionError("top_k"), OPTIONS])
    assert [(source.index, source.sent) for source in found] == [((0, 0), RED), ((2, 0), GREEN)]


@pytest.mark.parametrize("threads", [1, 3])
def test_each_image_is_a_batch_of_its_own_in_order_or_an_error(threads: int) -> None:
    timings = StageTimings()
    items, failures = Preparer(preprocess, ImageLimits(), threads).prepare(sources(RED, b"?", GREEN, RED), timings)
    assert [item.index for item in items] == [(0, 0), (0, 2), (0, 3)]
    assert [item.batch.pixels[0, 0, 0].tolist() for item in items] == [[255, 0, 0], [0, 255, 0], [255, 0, 0]]
    assert {place: type(error) for place, error in failures.items()} == {(0, 1): ImageDecodeError}
    assert timings.milliseconds.keys() >= {"decode", "preprocess"}


def test_pixels_are_an_image_within_the_same_limit() -> None:
    payload = Payload(images=(Pixels(bytes(range(18)), height=2, width=3), Pixels(bytes(21), height=1, width=7)))
    found = list_sources([payload], [OPTIONS])
    preparer = Preparer(lambda images: ImageBatch(torch.tensor(images[0])[None], ()), ImageLimits(max_pixels=6), 1)
    items, failures = preparer.prepare(found, StageTimings())
    assert [item.batch.pixels.flatten().tolist() for item in items] == [list(range(18))]
    assert {place: type(error) for place, error in failures.items()} == {(0, 1): PayloadTooLargeError}


def test_an_image_that_cannot_be_preprocessed_fails_alone() -> None:
    def refuse_green(images: Sequence[Image]) -> ImageBatch:
        if images[0][0, 0, 1] == 255:
            raise ZeroDivisionError
        return preprocess(images)

    items, failures = Preparer(refuse_green, ImageLimits(), 2).prepare(sources(RED, GREEN), StageTimings())
    assert [item.index for item in items] == [(0, 0)]
    assert {place: type(error) for place, error in failures.items()} == {(0, 1): InferenceError}


def test_images_are_prepared_side_by_side() -> None:
    both_there = threading.Barrier(2)

    def wait_for_the_other(images: Sequence[Image]) -> ImageBatch:
        both_there.wait(PATIENCE_S)  # raises where the other does not come
        return preprocess(images)

    items, _ = Preparer(wait_for_the_other, ImageLimits(), 2).prepare(sources(RED, GREEN), StageTimings())
    assert len(items) == 2


def test_a_budget_lets_in_what_fits_and_one_image_of_any_size() -> None:
    budget, entered = PixelBudget(100), threading.Event()

    def enter(pixels: int) -> None:
        with budget.hold(pixels):
            entered.set()

    with ThreadPoolExecutor(1) as other:
        with budget.hold(60):
            other.submit(enter, 40).result(PATIENCE_S)
            entered.clear()
            waiting = other.submit(enter, 1000)
            assert not entered.wait(0.2), "1000 pixels beside 60, where 100 are allowed"
        waiting.result(PATIENCE_S)


def test_pixels_and_files_share_the_budget() -> None:
    """Of two pictures that fit one by one, neither is prepared beside the other."""
    inside, most = 0, 0

    def count(images: Sequence[Image]) -> ImageBatch:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        time.sleep(0.05)
        inside -= 1
        return preprocess(images)

    pictures = (Pixels(bytes(8 * 8 * 3), height=8, width=8), png((255, 0, 0)), Pixels(bytes(8 * 8 * 3), 8, 8))
    found = list_sources([Payload(images=pictures)], [OPTIONS])
    items, failures = Preparer(count, ImageLimits(max_pixels=100), 3).prepare(found, StageTimings())
    assert (len(items), failures, most) == (3, {}, 1)
