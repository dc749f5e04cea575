"""Entry point of a classification archive."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from vision_serving.errors import InferenceError
from vision_serving.labels import thresholds_by_class_id
from vision_serving.options import ClassificationOptions, MultiLabelOptions, Options
from vision_serving.pictures.decoding import Image
from vision_serving.pictures.resizing import ImageBatch, preprocess_images
from vision_serving.predictions import Classification, ClassScore, Prediction
from vision_serving.results.postprocessing import best_labels, top_k_classes
from vision_serving.worker.service import TorchServeHandler


class ImageClassificationHandler(TorchServeHandler):
    """Pixels -> logits -> the best classes, or all above their thresholds where scores are independent."""

    def preprocess(self, images: Sequence[Image]) -> ImageBatch:
        return preprocess_images(images, self.config.preprocessing)

    def postprocess(
        self, outputs: Mapping[str, Tensor], batch: ImageBatch, options: Sequence[Options]
    ) -> list[Prediction]:
        """Return the best classes. outputs: `logits` (N, C)."""
        return [self._classify(logits, option) for logits, option in zip(outputs["logits"], options, strict=True)]

    def read_options(self, values: Mapping[str, Any]) -> Options:
        options = super().read_options(values)
        if not isinstance(options, MultiLabelOptions) or not options.class_thresholds:
            return options
        return options.model_copy(
            update={"class_thresholds": thresholds_by_class_id(options.class_thresholds, self.labels)}
        )

    def _classify(self, logits: Tensor, options: Options) -> Classification:
        assert isinstance(options, ClassificationOptions)
        if isinstance(options, MultiLabelOptions):
            scores, class_ids = best_labels(logits, options)
        else:
            scores, class_ids = top_k_classes(logits, options.top_k)
        if not torch.isfinite(scores).all():
            raise InferenceError("the model gave scores that are not finite for this image")
        return Classification(
            tuple(
                ClassScore(class_id, self.labels[class_id], round(score, 6))
                for class_id, score in zip(class_ids.tolist(), scores.tolist(), strict=True)
            )
        )
