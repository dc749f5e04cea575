"""Small real parts that stand in for big ones: backends whose answer can be read off a colour, and tiny networks."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import PIL.Image
import torch
import yaml
from torch import Tensor, nn
from ts.context import Context, RequestProcessor

from vision_serving.config import BackendConfig
from vision_serving.pictures.decoding import Image

Colour = tuple[int, int, int]

RED, GREEN, BLUE = (200, 0, 0), (0, 200, 0), (0, 0, 200)
POISON = (1, 2, 3)  # a batch that holds it fails
HUNGRY = (4, 5, 6)  # a batch that holds it runs out of memory
NOT_FINITE = (7, 8, 9)  # its own scores are NaN
COLOURS = ["red", "green", "blue"]
WITHOUT_METADATA = ("BMP", "GIF")  # of the formats of pictures: they have neither EXIF nor a colour profile here


def solid_image(colour: Colour, size_hw: tuple[int, int] = (8, 8)) -> Image:
    return np.full((*size_hw, 3), colour, dtype=np.uint8)


def encode_image(image: Image | PIL.Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    picture = image if isinstance(image, PIL.Image.Image) else PIL.Image.fromarray(image)
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def png(colour: Colour, size_hw: tuple[int, int] = (8, 8)) -> bytes:
    return encode_image(solid_image(colour, size_hw))


def noise_image(seed: int, size_hw: tuple[int, int]) -> Image:
    return np.random.default_rng(seed).integers(0, 256, (*size_hw, 3), dtype=np.uint8)


def generate_image(seed: int, size_hw: tuple[int, int]) -> Image:
    """A picture with the statistics of a photograph: colour noise over all scales, its amplitude growing with scale."""
    generator = np.random.default_rng(seed)
    height, width = size_hw
    canvas = np.zeros((height, width, 3), dtype=np.float32)
    for cells in (2, 4, 8, 16, 32, 64):
        noise = generator.uniform(-1, 1, (cells, cells, 3)).astype(np.float32)
        for channel in range(3):
            layer = PIL.Image.fromarray(noise[:, :, channel]).resize((width, height), PIL.Image.Resampling.BICUBIC)
            canvas[:, :, channel] += np.asarray(layer) / cells**0.7
    return (128 + 110 * canvas).clip(0, 255).astype(np.uint8)


class ColourBackend:
    """Gives the mean colour of each image, and fails as its special colours say. Remembers the batches that it saw."""

    device_types = ("cpu",)

    def __init__(self) -> None:
        self.batches: list[tuple[int, ...]] = []

    @classmethod
    def load(cls, artifact: Path, config: BackendConfig, device: torch.device) -> "ColourBackend":
        return cls()

    def mean_colours(self, pixels: Tensor) -> Tensor:
        """(N, 3) in 0..255."""
        self.batches.append(tuple(pixels.shape))
        colours = pixels.float().mean(dim=(1, 2)).round()
        if (colours == torch.tensor(POISON)).all(dim=1).any():
            raise ZeroDivisionError("division by zero, deep inside a model")
        if (colours == torch.tensor(HUNGRY)).all(dim=1).any():
            raise torch.OutOfMemoryError("no memory")
        colours[(colours == torch.tensor(NOT_FINITE)).all(dim=1)] = float("nan")
        return colours


class ColourClassifier(ColourBackend):
    """Logits are the mean red, green and blue."""

    def infer(self, pixels: Tensor) -> dict[str, Tensor]:
        return {"logits": self.mean_colours(pixels) / 50}


class ColourDetector(ColourBackend):
    """Dense candidates: the left half scores as the mean colour does, the right half a tenth of it."""

    def infer(self, pixels: Tensor) -> dict[str, Tensor]:
        scores = self.mean_colours(pixels) / 255
        height, width = pixels.shape[1:3]
        halves = torch.tensor([[0, 0, width / 2, height], [width / 2, 0, width, height]])
        return {"boxes": halves.expand(len(pixels), 2, 4), "scores": torch.stack((scores, scores / 10), dim=1)}


class ColourEmbedder(ColourBackend):
    """The vector is the mean red, green and blue."""

    def infer(self, pixels: Tensor) -> dict[str, Tensor]:
        return {"embedding": self.mean_colours(pixels)}


FAKE_BACKENDS = {
    "colour_classifier": "fakes:ColourClassifier",
    "colour_detector": "fakes:ColourDetector",
    "colour_embedder": "fakes:ColourEmbedder",
}

# A yaml of 700 bytes that stands for more than memory holds.
NESTED_MERGES = b"a0: &a0 {k: 1}\n" + b"".join(
    b"a%d: &a%d {<<: [%s]}\n" % (i, i, b", ".join([b"*a%d" % (i - 1)] * 9)) for i in range(1, 13)
)
EXACT_16 = {"resize": {"mode": "exact", "size": [16, 16]}}


def write_model_dir(folder: Path, task: str, labels: Sequence[str] = COLOURS, **handler: Any) -> Path:
    """What a worker finds after TorchServe extracted an archive, with a colour backend."""
    backends = {"classification": "colour_classifier", "detection": "colour_detector", "embedding": "colour_embedder"}
    backend = backends[task]
    section = {"task": task, "backend": backend, "artifact": "artifact", "preprocessing": EXACT_16, **handler}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model-config.yaml").write_text(yaml.safe_dump({"handler": section}))
    (folder / "labels.json").write_bytes(orjson.dumps(list(labels)))
    (folder / "artifact").write_bytes(b"")
    return folder


def new_context(folder: Path, requests: Sequence[Mapping[str, Any]] = (), batch_size: int = 1) -> Context:
    """TorchServe's own context. requests: the headers of each request."""
    context = Context("colours", str(folder), {"model": {"modelVersion": "1.5"}}, batch_size, None, "0.12.0")
    context.request_processor = [RequestProcessor(dict(headers)) for headers in requests]
    return context


# Sources of `python` recipes.
TINY_CLASSIFIER = '''
from torch import nn


class TinyClassifier(nn.Module):
    """Three layers; a dynamic batch."""

    def __init__(self, num_classes=3, width=8):
        super().__init__()
        self.features = nn.Conv2d(3, width, 3, stride=2)
        self.norm = nn.BatchNorm2d(width)
        self.head = nn.Linear(width, num_classes)

    def forward(self, images):
        return self.head(self.norm(self.features(images)).relu().mean(dim=(2, 3)))


def not_a_network():
    return 5
'''

TINY_DETECTOR = '''
import torch
from torch import nn


class TinyDetector(nn.Module):
    """A grid of cells over 32 x 32 images: one box and three class scores for each cell."""

    def __init__(self, num_classes=3):
        super().__init__()
        self.head = nn.Conv2d(3, 2 + num_classes, 8, stride=8)
        centres = torch.arange(4) * 8.0 + 4
        self.register_buffer("centres", torch.cartesian_prod(centres, centres).flip(1))

    def forward(self, images):
        found = self.head(images).flatten(2).transpose(1, 2).sigmoid()
        halves = found[..., :2] * 12 + 2
        return {"boxes": torch.cat((self.centres - halves, self.centres + halves), dim=2), "scores": found[..., 2:]}
'''


class Sized(nn.Module):
    """As RT-DETR and D-FINE are exported: labels, boxes in pixels of the size that they are told, scores."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Conv2d(3, 7, 8, 8)

    def forward(self, images: Tensor, orig_target_sizes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        boxes, logits = self.head(images).flatten(2).transpose(1, 2).split((4, 3), dim=2)
        centres, sizes = boxes.sigmoid().split(2, dim=2)
        corners = torch.cat((centres - sizes / 2, centres + sizes / 2), dim=2)
        scores, labels = (logits * 4).sigmoid().max(dim=2)
        return labels, corners * orig_target_sizes.repeat(1, 2).unsqueeze(1), scores
