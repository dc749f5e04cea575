"""The images that int8 ranges are measured on, and the search for layers that must stay in float."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from mar_tools.exporting.signal_to_noise import score_profile, scores_snr_db, signal_to_noise_db
from mar_tools.images import load_encoded_images
from mar_tools.models.recipes import QuantizationRecipe
from vision_serving.config import ColourConfig, ImageLimits, PreprocessingConfig
from vision_serving.errors import ConfigError
from vision_serving.pictures.decoding import decode_image
from vision_serving.pictures.resizing import preprocess_images

COMPARED_IMAGES = 8
TARGET_SNR_DB = 20.0  # clearly above what the gate asks of int8

Model = TypeVar("Model")


@dataclass(frozen=True)
class Calibration:
    """Which images to calibrate with, and what the recipe says about int8.

    target_snr_db: from which on no more layers are kept in float.
    """

    images: Path | None
    count: int
    preprocessing: PreprocessingConfig
    quantization: QuantizationRecipe
    colours: ColourConfig
    batch: int = 1
    target_snr_db: float = TARGET_SNR_DB

    @cached_property
    def batches(self) -> list[Tensor]:
        """Return uint8 (`batch`, H, W, 3) each, one image as it would be served, several times where it must be."""
        encoded = load_encoded_images(self.images, self.count, split="calibration")
        decoded = (decode_image(data, ImageLimits(), self.colours) for data in encoded)
        return [preprocess_images([image], self.preprocessing).pixels.repeat(self.batch, 1, 1, 1) for image in decoded]


def quantize_with_float_layers(
    calibration: Calibration,
    layers: Sequence[str],
    quantize: Callable[[list[str]], Model],
    measure_snr_db: Callable[[Model], float],
) -> tuple[Model, list[str]]:
    """Quantise all layers but those that must stay in float; gives the model and their names.

    `layers`: all that could be quantised, from the input to the output. Where the recipe names none, the first and the
    last ones are kept, more of them each time, until the outputs are close enough to those of the float model: they are
    what int8 hurts most (Krishnamoorthi, "Quantizing deep convolutional networks", 2018). The closest wins.
    Raises ConfigError where the recipe names a layer that there is not: the runtimes would ignore it without a word.
    """
    if calibration.quantization.float_layers != "auto":
        named = list(calibration.quantization.float_layers)
        unknown = sorted(set(named) - set(layers))
        if unknown:
            raise ConfigError(
                f"quantization.float_layers: no layer {unknown[0]!r} to keep in float; this backend calls its layers "
                f"{', '.join(layers[:3])}, ... {', '.join(layers[-3:])}"
            )
        return quantize(named), named
    best: tuple[float, Model, list[str]] | None = None
    for kept in float_layer_choices(layers):
        model = quantize(kept)
        snr_db = measure_snr_db(model)
        if best is None or snr_db > best[0]:
            best = (snr_db, model, kept)
        if snr_db >= calibration.target_snr_db:
            break
    assert best is not None
    return best[1], best[2]


def float_layer_choices(layers: Sequence[str]) -> Iterator[list[str]]:
    """Yield nothing, the last layer, then 1, 2, 4 of the first and last each, up to a quarter of all."""
    yield []
    if len(layers) > 1:
        yield [layers[-1]]
    count = 1
    while count * 4 <= len(layers) and count <= 4:
        yield [*layers[:count], *layers[-count:]]
        count *= 2


def outputs_snr_db(expected: Sequence[dict[str, Tensor]], found: Sequence[dict[str, Tensor]]) -> float:
    """Return the worst signal-to-noise ratio over images: of logits or vectors, or of the scores that count."""
    dense = next((name for name in ("logits", "embedding") if name in expected[0]), None)
    if dense is not None:
        pairs = zip(expected, found, strict=True)
        return min(signal_to_noise_db(left[dense].float(), right[dense].float()) for left, right in pairs)
    profiles = [[score_profile(outputs["scores"]) for outputs in side] for side in (expected, found)]
    mean_score = torch.cat([outputs["scores"].flatten() for outputs in expected]).clamp(min=0).mean()
    return min(scores_snr_db(profiles[0], profiles[1], float(mean_score)))
