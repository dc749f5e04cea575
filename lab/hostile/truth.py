"""What is right: the answers that the served export gives in process, and good pictures with theirs."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import orjson

from lab.testbed.traffic import Ask, Check
from mar_tools.command_line import ROOT
from mar_tools.images import load_encoded_images
from mar_tools.load_testing.answers import Expected, open_export, read_found
from mar_tools.verification.observations import load_handler
from vision_serving.answers.responses import encode_response
from vision_serving.cores import plan_threads, usable_cores
from vision_serving.handler import VisionHandler
from vision_serving.requests.payload import Payload

HELD_OUT = ROOT / "examples" / "digits_classification" / "heldout"
PICTURES = 40


@dataclass(frozen=True)
class AnsweringModel:
    """handler: of the export that is served as `model`."""

    handler: VisionHandler
    model: str

    @property
    def path(self) -> str:
        return f"/predictions/{quote(self.model)}"

    def expect(self, picture: bytes) -> tuple[int, Check]:
        """Return the status of a raw body, and what is wrong with an answer.

        A server's fault is never what is expected.
        """
        response = encode_response(self.handler.predict([Payload(images=(picture,))])[0])
        if response.status == 200:
            return 200, same_prediction(Expected(tuple(read_found(orjson.loads(response.body)))))
        return (response.status if response.status < 500 else 400), same_body(response.body)

    def good_asks(self) -> list[Ask]:
        """Return pictures that the model never saw, each with its own answer."""
        headers = {"Content-Type": "image/jpeg"}
        pictures = load_encoded_images(HELD_OUT, PICTURES)
        return [
            Ask(f"picture {number}", self.path, picture, headers, *self.expect(picture))
            for number, picture in enumerate(pictures)
        ]


@contextmanager
def open_answering_model(export: Path, model: str, workers: int = 2) -> Iterator[AnsweringModel]:
    """Open the truth. export: a folder or an archive. workers: of the server, which divide the cores.

    Raises ConfigError.
    """
    with open_export(export) as folder:
        yield AnsweringModel(load_handler(folder, plan_threads(usable_cores(), workers)), model)


def same_prediction(expected: Expected) -> Check:
    def check(body: bytes) -> str:
        return "" if expected.matches(body) else f"another answer than the model's: {body[:200]!r}"

    return check


def same_body(expected: bytes) -> Check:
    def check(body: bytes) -> str:
        return "" if body == expected else f"answered {body[:200]!r} instead of {expected[:200]!r}"

    return check


def mix(good: list[Ask], hostile: list[Ask], count: int, seed: int) -> list[Ask]:
    """Mix `count` of the good ones, each as often, among all of the hostile ones, in random order."""
    asks = [*hostile, *(good[number % len(good)] for number in range(count))]
    random.Random(seed).shuffle(asks)
    return asks
