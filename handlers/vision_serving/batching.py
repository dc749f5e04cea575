"""Prepared images through the model in batches, each with a result or an error of its own."""

from collections.abc import Mapping, Sequence
from typing import Protocol, TypeAlias

import torch
from torch import Tensor

from vision_serving.errors import RequestError
from vision_serving.foreign_errors import is_device_lost, is_out_of_memory, release_memory, to_request_error, try_stage
from vision_serving.geometry import ImageGeometry
from vision_serving.options import Options
from vision_serving.pictures.preparation import PreparedImage
from vision_serving.pictures.resizing import ImageBatch, join_batches
from vision_serving.predictions import Prediction
from vision_serving.requests.contents import ImageIndex
from vision_serving.results.outcome import ImageResult
from vision_serving.timings import StageTimings

PartResult: TypeAlias = Prediction | RequestError  # of an image, or of one of its tiles


class ModelStages(Protocol):
    """What a model does with a batch, and with what it found in the parts of an image: a VisionHandler."""

    def inference(self, batch: ImageBatch) -> dict[str, Tensor]: ...

    def postprocess(
        self, outputs: Mapping[str, Tensor], batch: ImageBatch, options: Sequence[Options]
    ) -> list[Prediction]: ...

    def join(
        self, predictions: Sequence[Prediction], geometries: Sequence[ImageGeometry], options: Options
    ) -> Prediction: ...


class Batcher:
    """Runs batches of up to `limit` images."""

    def __init__(self, model: ModelStages, limit: int, device: torch.device) -> None:
        self._model = model
        self._limit = limit
        self._device = device

    def predict(self, images: Sequence[PreparedImage], timings: StageTimings) -> dict[ImageIndex, ImageResult]:
        """Return a result per index. An image and its tiles have one index, and one result together."""
        parts: dict[ImageIndex, list[tuple[PreparedImage, PartResult]]] = {}
        for group in _group_by_size(images, self._limit):
            for image, result in zip(group, self._predict_group(group, timings), strict=True):
                parts.setdefault(image.index, []).append((image, result))
        return {index: self._join_parts(found, timings) for index, found in parts.items()}

    def run(self, images: Sequence[PreparedImage], timings: StageTimings) -> list[Prediction]:
        """Return one prediction per image, or raise whatever the model raises."""
        batch = join_batches([image.batch for image in images])
        with timings.measure("inference"):
            outputs = self._model.inference(batch)
        with timings.measure("postprocess"):
            predictions = self._model.postprocess(outputs, batch, [image.options for image in images])
        if len(predictions) != len(images):
            raise ValueError(f"{len(predictions)} predictions of {len(images)} images")
        return predictions

    def _predict_group(
        self, images: Sequence[PreparedImage], timings: StageTimings, again: bool = False
    ) -> list[PartResult]:
        """Return results in order. A batch that fails is halved until the images that make it fail stand alone.

        Where memory ran out it is given back first; on a GPU, which others share, one image is then tried once more.
        """
        try:
            return list(self.run(images, timings))
        except Exception as error:
            starved = is_out_of_memory(error)
            final = again or not starved or self._device.type != "cuda"
            if (len(images) == 1 and final) or is_device_lost(error):
                return [to_request_error(error)] * len(images)
        if starved:
            release_memory()
        if len(images) == 1:
            return self._predict_group(images, timings, again=True)
        middle = len(images) // 2
        return [*self._predict_group(images[:middle], timings), *self._predict_group(images[middle:], timings)]

    def _join_parts(self, found: Sequence[tuple[PreparedImage, PartResult]], timings: StageTimings) -> ImageResult:
        """Return the result of one image; that of any part that failed, for an answer without it would be wrong."""
        predictions = []
        for _, result in found:
            if isinstance(result, RequestError):
                return result
            predictions.append(result)
        geometries = [image.batch.geometries[0] for image, _ in found]
        with timings.measure("postprocess"):
            return try_stage("inference", self._model.join, predictions, geometries, found[0][0].options)


def _group_by_size(images: Sequence[PreparedImage], limit: int) -> list[list[PreparedImage]]:
    """Return groups that can share a batch: images of one model size, `limit` at a time."""
    sizes: dict[tuple[int, int], list[PreparedImage]] = {}
    for image in images:
        sizes.setdefault(image.batch.size_hw, []).append(image)
    return [alike[start : start + limit] for alike in sizes.values() for start in range(0, len(alike), limit)]
