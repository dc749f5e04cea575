"""Entry point of a detection archive."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from vision_serving.errors import InferenceError, InvalidOptionError
from vision_serving.geometry import ImageGeometry
from vision_serving.labels import find_class_ids, thresholds_by_class_id
from vision_serving.options import DetectionOptions, Options
from vision_serving.pictures.decoding import Image
from vision_serving.pictures.resizing import ImageBatch, preprocess_images
from vision_serving.predictions import Detection, Detections, ImageSize, OrientedDetections, Prediction, convert_boxes
from vision_serving.results.instances import add_instances
from vision_serving.results.postprocessing import read_candidates, require_scores, select_detections
from vision_serving.results.tile_merging import merge_tiles
from vision_serving.worker.service import TorchServeHandler


class ObjectDetectionHandler(TorchServeHandler):
    """Pixels -> box candidates -> thresholds and NMS -> boxes in the source image."""

    def preprocess(self, images: Sequence[Image]) -> ImageBatch:
        return preprocess_images(images, self.config.preprocessing)

    def postprocess(
        self, outputs: Mapping[str, Tensor], batch: ImageBatch, options: Sequence[Options]
    ) -> list[Prediction]:
        """Return the detections. outputs: padded or dense candidates, see `postprocessing.read_candidates`."""
        return [
            self._detect(outputs, index, geometry, option)
            for index, (geometry, option) in enumerate(zip(batch.geometries, options, strict=True))
        ]

    def join(
        self, predictions: Sequence[Prediction], geometries: Sequence[ImageGeometry], options: Options
    ) -> Prediction:
        """Join tiles to one answer, and turn boxes, until here xyxy, into what `box_format` says."""
        assert isinstance(options, DetectionOptions)
        parts = [prediction for prediction in predictions if isinstance(prediction, Detections)]
        whole = parts[0] if len(parts) == 1 else merge_tiles(parts, [each.seen for each in geometries], options)
        return convert_boxes(whole, options.box_format)

    def read_options(self, values: Mapping[str, Any]) -> Options:
        options = super().read_options(values)
        assert isinstance(options, DetectionOptions)
        if options.tile_size and self.config.instances:
            raise InvalidOptionError(f"tile_size: of a model with {self.config.instances} only whole images are served")
        updates: dict[str, object] = {}
        if options.class_filter is not None:
            updates["class_filter"] = tuple(
                class_id
                for name in options.class_filter
                for class_id in find_class_ids(name, self.labels, "class_filter")
            )
        if options.class_thresholds:
            updates["class_thresholds"] = thresholds_by_class_id(options.class_thresholds, self.labels)
        return options.model_copy(update=updates) if updates else options

    def _detect(
        self, outputs: Mapping[str, Tensor], index: int, geometry: ImageGeometry, options: Options
    ) -> Detections:
        assert isinstance(options, DetectionOptions)
        candidates = read_candidates(
            outputs, index, options.score_threshold, self.config.candidates_per_class, options.class_thresholds
        )
        best = select_detections(candidates, options)
        require_scores(outputs["scores"][index])
        if not torch.isfinite(best.boxes).all():
            raise InferenceError("the model gave boxes that are not finite for this image")
        if len(best.class_ids) and int(best.class_ids.max()) >= len(self.labels):
            raise InferenceError(f"the model gave class {int(best.class_ids.max())}, and has {len(self.labels)} labels")
        detections: tuple[Detection, ...] = tuple(
            Detection(class_id, self.labels[class_id], round(score, 6), (x1, y1, x2, y2))
            for class_id, score, (x1, y1, x2, y2) in zip(
                best.class_ids.tolist(),
                best.scores.clamp(max=1).tolist(),  # none is below its threshold, which is 0 or more
                geometry.to_source(best.boxes).double().round(decimals=2).tolist(),
                strict=True,
            )
        )
        detections = add_instances(detections, best, outputs, index, geometry, options)
        height, width = geometry.source_hw
        kind = OrientedDetections if self.config.instances == "corners" else Detections
        return kind(detections, ImageSize(width=width, height=height))
