"""Prepared images through the model in batches, each with a result or an error of its own."""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from vision_serving.errors import RequestError
from vision_serving.foreign_errors import is_device_lost, is_out_of_memory, release_memory, to_request_error
from vision_serving.geometry import ImageGeometry
from vision_serving.metrics import StageTimings
from vision_serving.options import Options
from vision_serving.pictures.preparation import Item, group_items
from vision_serving.pictures.resizing import ImageBatch, join_batches
from vision_serving.predictions import Prediction
from vision_serving.requests.contents import Place
from vision_serving.results.outcome import ItemResult

Infer: TypeAlias = Callable[[ImageBatch], dict[str, Tensor]]
Postprocess: TypeAlias = Callable[[Mapping[str, Tensor], ImageBatch, Sequence[Options]], list[Prediction]]
Join: TypeAlias = Callable[[Sequence[Prediction], Sequence[ImageGeometry], Options], Prediction]
PartResult: TypeAlias = Prediction | RequestError  # of an image, or of one of its tiles


class Batcher:
    """Runs batches of up to `limit` images. join: what is seen of an image, and of its tiles, becomes its answer."""

    def __init__(self, infer: Infer, postprocess: Postprocess, join: Join, limit: int, device: torch.device) -> None:
        self._infer = infer
        self._postprocess = postprocess
        self._join = join
        self._limit = limit
        self._device = device

    def predict(self, items: Sequence[Item], timings: StageTimings) -> dict[Place, ItemResult]:
        """Results by place. Items that share a place, tiles of one image, have one result together."""
        parts: dict[Place, list[tuple[Item, PartResult]]] = {}
        for group in group_items(items, self._limit):
            for item, result in zip(group, self._predict_group(group, timings), strict=True):
                parts.setdefault(item.place, []).append((item, result))
        return {place: self._join_parts(found, timings) for place, found in parts.items()}

    def run(self, items: Sequence[Item], timings: StageTimings) -> list[Prediction]:
        """One prediction per item, or whatever the model raises."""
        batch = join_batches([item.batch for item in items])
        with timings.measure("inference"):
            outputs = self._infer(batch)
        with timings.measure("postprocess"):
            predictions = self._postprocess(outputs, batch, [item.options for item in items])
        if len(predictions) != len(items):
            raise ValueError(f"{len(predictions)} predictions of {len(items)} images")
        return predictions

    def _predict_group(self, items: Sequence[Item], timings: StageTimings, again: bool = False) -> list[PartResult]:
        """Results in order. A batch that fails is halved until the items that make it fail stand alone.

        Where memory ran out it is given back first; on a GPU, which others share, one image is then tried once more.
        """
        try:
            return list(self.run(items, timings))
        except Exception as error:  # the border: whatever a model raises becomes the answer of the item that caused it
            starved = is_out_of_memory(error)
            final = again or not starved or self._device.type != "cuda"
            if (len(items) == 1 and final) or is_device_lost(error):
                return [to_request_error(error)] * len(items)
        if starved:
            release_memory()
        if len(items) == 1:
            return self._predict_group(items, timings, again=True)
        middle = len(items) // 2
        return [*self._predict_group(items[:middle], timings), *self._predict_group(items[middle:], timings)]

    def _join_parts(self, found: Sequence[tuple[Item, PartResult]], timings: StageTimings) -> ItemResult:
        """The result of one image; that of any part that failed, for an answer without it would be a wrong one."""
        predictions = []
        for _, result in found:
            if isinstance(result, RequestError):
                return result
            predictions.append(result)
        geometries = [item.batch.geometries[0] for item, _ in found]
        try:
            with timings.measure("postprocess"):
                return self._join(predictions, geometries, found[0][0].options)
        except Exception as error:  # the border, as above
            return to_request_error(error)
