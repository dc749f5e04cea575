"""The right answers to the images of a load test, computed in process, and what still counts as right.

Batches of other sizes and other kernels move scores a little, so an answer need not be the same to the last digit.
"""

import io
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import PIL.Image
import torch

from mar_tools.archives.archive import extract_archive
from mar_tools.archives.box_matching import find_unpaired, intersection_over_union
from mar_tools.verification.observations import load_handler
from vision_serving.answers.responses import encode_response
from vision_serving.backends.eager import read_artifact
from vision_serving.config import read_handler_config
from vision_serving.cores import ThreadPlan
from vision_serving.errors import ConfigError
from vision_serving.labels import read_labels
from vision_serving.options import DetectionOptions
from vision_serving.predictions import Box
from vision_serving.requests.payload import Payload

SCORE_TOLERANCE = 0.02
TIE_SHARE = 0.05  # the expected best class may change places with one whose score is so near
CONFIDENT_SHARE = 0.1  # a box is owed an equal where its score is by this share above the score threshold
LEAST_IOU = 0.9


@dataclass(frozen=True)
class Found:
    """One class or one box of an answer. TorchServe's own handlers give labels only: class_id is None then."""

    score: float
    label: str
    class_id: int | None = None
    box: Box | None = None

    def is_of_class(self, other: "Found") -> bool:
        """Compare class ids where both have one: two classes may share a label."""
        if self.class_id is None or other.class_id is None:
            return self.label == other.label
        return self.class_id == other.class_id


@dataclass(frozen=True)
class Expected:
    """The right answer to one image, best first. score_threshold: of the boxes; None for classes."""

    found: tuple[Found, ...]
    score_threshold: float | None = None

    def matches(self, body: bytes) -> bool:
        """Return whether an answer has the best class and score, or all confident boxes. A body of no form has not."""
        found = self._read(body)
        if found is None:
            return False
        if self.score_threshold is None:
            return self._has_best_class(found)
        confident = self.score_threshold * (1 + CONFIDENT_SHARE)
        return _all_have_equals(self.found, found, confident) and _all_have_equals(found, self.found, confident)

    def has_same_classes(self, body: bytes) -> bool:
        """Return whether an answer names the same classes (a classifier's top k), each as often, in any order."""
        found = list(self._read(body) or [])
        for expected in self.found:
            same = next((entry for entry in found if entry.is_of_class(expected)), None)
            if same is None:
                return False
            found.remove(same)
        return not found

    @staticmethod
    def _read(body: bytes) -> list[Found] | None:
        try:
            return read_found(orjson.loads(body))
        except (ValueError, KeyError, TypeError, AttributeError):
            return None

    def _has_best_class(self, found: Sequence[Found]) -> bool:
        if not found:
            return not self.found
        best = max(found, key=lambda entry: entry.score)
        tied = [entry for entry in self.found if entry.score >= self.found[0].score * (1 - TIE_SHARE)]
        return any(best.is_of_class(entry) and abs(best.score - entry.score) <= SCORE_TOLERANCE for entry in tied)


def expect_answers(export: Path, images: Sequence[bytes], threads: ThreadPlan | None = None) -> list[Expected]:
    """Return the export's own answer to each image, one at a time. export: an export folder or a `.mar`.

    threads: as the server has them. OpenVINO sums in another order with another number of threads, and untrained int8
    detectors find other boxes then.

    Raises ConfigError where it is neither, or cannot answer an image.
    """
    with open_export(export) as folder:
        handler = load_handler(folder, threads)
        options = handler.read_options({})
        threshold = options.score_threshold if isinstance(options, DetectionOptions) else None
        expected = []
        for number, image in enumerate(images):
            response = encode_response(handler.predict([Payload(images=(image,))])[0])
            if response.status != 200:
                raise ConfigError(f"{export}: no answer to image {number}: {response.body.decode()}")
            expected.append(Expected(tuple(read_found(orjson.loads(response.body))), threshold))
    return expected


def expect_library_boxes(export: Path, images: Sequence[bytes]) -> list[Expected]:
    """Return what torchvision's own detector finds in whole float images. export: of eager fp32. Raises ConfigError.

    Our preprocessing resizes uint8 pixels, and no untrained detector finds the same after a change of one level of 255.
    """
    config = read_handler_config(export / "model-config.yaml")
    _, network = read_artifact(export / config.artifact)
    labels = read_labels(export / config.labels)
    threshold = DetectionOptions().score_threshold
    expected = []
    for image in images:
        pixels = torch.from_numpy(np.array(PIL.Image.open(io.BytesIO(image)).convert("RGB"))).permute(2, 0, 1) / 255
        with torch.inference_mode():
            (found,) = network([pixels])
        rows = zip(found["scores"].tolist(), found["labels"].tolist(), found["boxes"].tolist(), strict=True)
        kept = [
            Found(score, labels[number], number, _read_box(box)) for score, number, box in rows if score >= threshold
        ]
        expected.append(Expected(tuple(kept), threshold))
    return expected


@contextmanager
def open_export(export: Path) -> Iterator[Path]:
    """Open the folder of an export, or a temporary one with what an archive holds. Raises ConfigError."""
    if export.is_dir():
        yield export
        return
    with tempfile.TemporaryDirectory(prefix="vision-serving-") as folder:
        extract_archive(export, Path(folder))
        yield Path(folder)


def read_found(document: Any) -> list[Found]:
    """Read an answer, ours or TorchServe's own. Raises ValueError, KeyError, TypeError or AttributeError."""
    if isinstance(document, list):
        return [_read_stock_box(entry) for entry in document]
    if "classes" in document:
        return [Found(float(row["score"]), row["label"], row["class_id"]) for row in document["classes"]]
    if "detections" in document:
        rows = document["detections"]
        return [Found(float(row["score"]), row["label"], row["class_id"], _read_box(row["box"])) for row in rows]
    return [Found(float(score), label) for label, score in document.items()]


def _read_stock_box(entry: dict[str, Any]) -> Found:
    """Read `{"person": [x1, y1, x2, y2], "score": 0.9}` of TorchServe's object_detector."""
    ((label, box),) = ((key, value) for key, value in entry.items() if key != "score")
    return Found(float(entry["score"]), label, box=_read_box(box))


def _read_box(values: Any) -> Box:
    x1, y1, x2, y2 = map(float, values)
    return x1, y1, x2, y2


def _all_have_equals(owed: Sequence[Found], given: Sequence[Found], confident: float) -> bool:
    """Return whether each confident box has its own equal, of one class and place, on the other side."""
    boxes = [box for box in owed if box.score >= confident]
    return not find_unpaired(boxes, given, _are_equal, one_to_one=True)


def _are_equal(one: Found, other: Found) -> bool:
    return one.is_of_class(other) and intersection_over_union(one.box, other.box) >= LEAST_IOU
