"""Entry point of a classification archive."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from vision_serving.errors import InferenceError
from vision_serving.options import ClassificationOptions, Options
from vision_serving.pictures.decoding import Image
from vision_serving.pictures.resizing import ImageBatch, preprocess_images
from vision_serving.predictions import Classification, ClassScore, Prediction
from vision_serving.results.postprocessing import top_k_classes
from vision_serving.worker.service import TorchServeHandler


class ImageClassificationHandler(TorchServeHandler):
    """Pixels -> logits -> the best classes."""

    def preprocess(self, images: Sequence[Image]) -> ImageBatch:
        return preprocess_images(images, self.config.preprocessing)

    def postprocess(
        self, outputs: Mapping[str, Tensor], batch: ImageBatch, options: Sequence[Options]
    ) -> list[Prediction]:
        """Return the best classes. outputs: `logits` (N, C)."""
        return [self._classify(logits, option) for logits, option in zip(outputs["logits"], options, strict=True)]

    def _classify(self, logits: Tensor, options: Options) -> Classification:
        assert isinstance(options, ClassificationOptions)
        scores, class_ids = top_k_classes(logits, options.top_k)
        if not torch.isfinite(scores).all():
            raise InferenceError("the model gave scores that are not finite for this image")
        return Classification(
            tuple(
                ClassScore(class_id, self.labels[class_id], round(score, 6))
                for class_id, score in zip(class_ids.tolist(), scores.tolist(), strict=True)
            )
        )
