"""Entry point of a detection archive."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from vision_serving.config import DetectionOptions, Options
from vision_serving.errors import InferenceError, InvalidOptionError
from vision_serving.handler import VisionHandler
from vision_serving.images import Image
from vision_serving.instances import add_instances
from vision_serving.postprocessing import read_candidates, select_detections
from vision_serving.predictions import Detection, Detections, ImageSize, Prediction
from vision_serving.preprocessing import ImageBatch, ImageGeometry, preprocess_images

NAMED = 10  # labels that a message lists


class ObjectDetectionHandler(VisionHandler):
    """Pixels -> box candidates -> thresholds and NMS -> boxes in the source image."""

    def preprocess(self, images: Sequence[Image]) -> ImageBatch:
        return preprocess_images(images, self.config.preprocessing)

    def postprocess(
        self, outputs: Mapping[str, Tensor], batch: ImageBatch, options: Sequence[Options]
    ) -> list[Prediction]:
        """outputs: padded or dense candidates, see `postprocessing.read_candidates`."""
        return [
            self._detect(outputs, index, geometry, option)
            for index, (geometry, option) in enumerate(zip(batch.geometries, options, strict=True))
        ]

    def read_options(self, values: Mapping[str, Any]) -> Options:
        options = super().read_options(values)
        assert isinstance(options, DetectionOptions)
        if options.class_filter is None:
            return options
        class_ids = tuple(self._to_class_id(wanted) for wanted in options.class_filter)
        return options.model_copy(update={"class_filter": class_ids})

    def _to_class_id(self, wanted: int | str) -> int:
        if wanted in self.labels:
            return self.labels.index(str(wanted))
        text = str(wanted)[:10]  # int() refuses thousands of digits
        if text.isdecimal() and int(text) < len(self.labels):
            return int(text)
        known = f"{', '.join(self.labels[:NAMED])}{', ...' if len(self.labels) > NAMED else ''}"
        raise InvalidOptionError(
            f"class_filter: {str(wanted)[:60]!r} is neither a label of this model ({known}) nor a class id"
        )

    def _detect(
        self, outputs: Mapping[str, Tensor], index: int, geometry: ImageGeometry, options: Options
    ) -> Detections:
        assert isinstance(options, DetectionOptions)
        candidates = read_candidates(outputs, index, options.score_threshold, self.config.candidates_per_class)
        best = select_detections(candidates, options)
        if not (torch.isfinite(outputs["scores"][index]).all() and torch.isfinite(best.boxes).all()):
            raise InferenceError("the model gave scores or boxes that are not finite for this image")
        detections: tuple[Detection, ...] = tuple(
            Detection(class_id, self.labels[class_id], round(score, 6), (x1, y1, x2, y2))
            for class_id, score, (x1, y1, x2, y2) in zip(
                best.class_ids.tolist(),
                best.scores.tolist(),
                geometry.to_source(best.boxes).double().round(decimals=2).tolist(),
                strict=True,
            )
        )
        detections = add_instances(detections, best, outputs, index, geometry, options)
        height, width = geometry.source_hw
        return Detections(detections, ImageSize(width=width, height=height))
