"""Entry point of an archive that gives embeddings."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from vision_serving.errors import InferenceError
from vision_serving.options import EmbeddingOptions, Options
from vision_serving.pictures.decoding import Image
from vision_serving.pictures.resizing import ImageBatch, preprocess_images
from vision_serving.predictions import Embedding, Prediction
from vision_serving.results.postprocessing import round_values
from vision_serving.worker.service import TorchServeHandler


class ImageEmbeddingHandler(TorchServeHandler):
    """Pixels -> a vector, of a length of 1 where a request asks for it."""

    def preprocess(self, images: Sequence[Image]) -> ImageBatch:
        return preprocess_images(images, self.config.preprocessing)

    def postprocess(
        self, outputs: Mapping[str, Tensor], batch: ImageBatch, options: Sequence[Options]
    ) -> list[Prediction]:
        """Return the vectors. outputs: `embedding` (N, D)."""
        return [self._embed(vector, option) for vector, option in zip(outputs["embedding"], options, strict=True)]

    def _embed(self, vector: Tensor, options: Options) -> Embedding:
        assert isinstance(options, EmbeddingOptions)
        if not torch.isfinite(vector).all():
            raise InferenceError("the model gave an embedding that is not finite for this image")
        values = vector.double()
        return Embedding(round_values(functional.normalize(values, dim=0) if options.normalize else values))
