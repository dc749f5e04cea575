"""The two models that the servers of all peers can serve.

artifact   our handler on an export, in the server's own process; batches are the framework's; the answer is our JSON
idiomatic  what the frameworks' documentation shows: Pillow, torchvision's transforms, the eager fp32 network
"""

import io
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import orjson
import PIL.Image
import torch
from torch import Tensor, nn

from lab.peers.peer_arguments import ServerArguments
from mar_tools.exporting.export_folders import REFERENCE
from mar_tools.models.handlers_by_task import new_handler
from vision_serving.answers.responses import encode_response
from vision_serving.backends.eager import read_artifact
from vision_serving.config import PreprocessingConfig, read_handler_config
from vision_serving.cores import plan_threads, usable_cores
from vision_serving.errors import ConfigError
from vision_serving.handler import VisionHandler
from vision_serving.labels import read_labels
from vision_serving.requests.payload import Payload

TOP_K = 5


class PeerModel(Protocol):
    """Two steps, for frameworks that take a request's own work out of the batch."""

    def decode(self, body: bytes) -> Any:
        """Turn one request's body into one item of a batch."""

    def predict(self, items: Sequence[Any]) -> list[bytes]:
        """Turn a batch into the JSON answer of each."""


class ArtifactModel:
    """Our handler. It decodes batches itself, so that `decode` has nothing to do."""

    def __init__(self, handler: VisionHandler) -> None:
        self._handler = handler

    @classmethod
    def load(cls, arguments: ServerArguments) -> "ArtifactModel":
        config = read_handler_config(arguments.export / "model-config.yaml")
        handler = new_handler(config.task)
        device = torch.device("cuda:0" if config.device_type == "cuda" else "cpu")
        handler.load(arguments.export, device, plan_threads(usable_cores(), arguments.workers, arguments.threads))
        return cls(handler)

    def decode(self, body: bytes) -> Payload:
        return Payload(images=(body,))

    def predict(self, items: Sequence[Payload]) -> list[bytes]:
        return [encode_response(outcome).body for outcome in self._handler.predict(items)]


class EagerModel:
    """A classifier as tutorials serve it."""

    def __init__(self, network: nn.Module, transform: Callable[[PIL.Image.Image], Tensor], labels: list[str]) -> None:
        self._network = network
        self._transform = transform
        self._labels = labels

    @classmethod
    def load(cls, arguments: ServerArguments) -> "EagerModel":
        torch.set_num_threads(arguments.threads)
        reference = arguments.export.parent / REFERENCE
        config = read_handler_config(reference / "model-config.yaml")
        if config.task != "classification":
            raise ConfigError(f"{reference}: a model of task {config.task}; idiomatic servers are classifiers")
        _, network = read_artifact(reference / config.artifact)
        return cls(network, new_transform(config.preprocessing), read_labels(reference / config.labels))

    def decode(self, body: bytes) -> Tensor:
        """Decode to (3, H, W), normalised."""
        return self._transform(PIL.Image.open(io.BytesIO(body)).convert("RGB"))

    def predict(self, items: Sequence[Tensor]) -> list[bytes]:
        with torch.inference_mode():
            scores = self._network(torch.stack(list(items))).softmax(dim=1)
        best = scores.topk(min(TOP_K, len(self._labels)))
        return [self._answer(*row) for row in zip(best.indices.tolist(), best.values.tolist(), strict=True)]

    def _answer(self, class_ids: list[int], scores: list[float]) -> bytes:
        pairs = zip(class_ids, scores, strict=True)
        classes = [{"class_id": number, "label": self._labels[number], "score": score} for number, score in pairs]
        return orjson.dumps({"classes": classes})


def new_transform(config: PreprocessingConfig) -> Callable[[PIL.Image.Image], Tensor]:
    """Return torchvision's transforms of a preprocessing. Raises ConfigError for one that they do not have."""
    from torchvision import transforms

    if config.resize.mode not in ("shortest_edge", "exact") or config.resize.max_size is not None:
        raise ConfigError(f"resize mode {config.resize.mode!r}: idiomatic servers know 'shortest_edge' and 'exact'")
    interpolation = transforms.InterpolationMode(config.interpolation)
    steps = [transforms.Resize(config.resize.size, interpolation)]
    steps += [transforms.CenterCrop(config.crop)] if config.crop else []
    steps += [transforms.ToTensor(), transforms.Normalize(config.mean, config.std)]
    composed: Callable[[PIL.Image.Image], Tensor] = transforms.Compose(steps)
    return composed


MODELS: dict[str, Callable[[ServerArguments], PeerModel]] = {
    "artifact": ArtifactModel.load,
    "idiomatic": EagerModel.load,
}


def load_model(arguments: ServerArguments) -> PeerModel:
    """Return the model of a mode, warm: it has run one image and a full batch. Raises ConfigError or BackendError."""
    model = MODELS[arguments.mode](arguments)
    picture = io.BytesIO()
    PIL.Image.new("RGB", (640, 480), (128, 128, 128)).save(picture, "JPEG")
    for count in sorted({1, arguments.batch_size}):
        model.predict([model.decode(picture.getvalue()) for _ in range(count)])
    return model
