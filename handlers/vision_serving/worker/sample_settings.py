"""What `config.properties` says of samples of predictions: of which requests, with pictures or not, how many and how
long."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from vision_serving.errors import ConfigError
from vision_serving.worker.server_settings import (
    read_count,
    read_model,
    read_properties,
    read_text,
    server_config_path,
    state_folder,
)

SHARE_KEY, PICTURES_KEY = "sample_share", "sample_pictures"  # of a version in `models`; TorchServe ignores all four
SIZE_KEY, DAYS_KEY = "vision_samples_mb", "vision_samples_days"
DEFAULT_MB, DEFAULT_DAYS = 64, 30
MOST_MB, MOST_DAYS = 1 << 20, 3650
MEBI = 1 << 20


@dataclass(frozen=True)
class SampleBounds:
    """What the samples of a model may take at most, pictures and all versions together, and how long they are kept."""

    most_bytes: int = DEFAULT_MB * MEBI
    days: int = DEFAULT_DAYS


@dataclass(frozen=True)
class SampleSettings:
    """Which requests of a version are sampled. share: in [0, 1], 0 for none. folder: of the samples of its model."""

    folder: Path = Path()
    share: float = 0.0
    pictures: bool = False
    bounds: SampleBounds = SampleBounds()


def configured_samples(model_name: str, version: str) -> SampleSettings:
    """Return what the `config.properties` of the server that this process works for says; elsewhere: none.

    Raises ConfigError.
    """
    path = server_config_path()
    if path is None:
        return SampleSettings()
    text = read_text(path)
    place = f"config.properties: `models`: {model_name} {version}"
    share, pictures = read_sampling(read_model(text, model_name).get(version, {}), place)
    folder = model_folder(samples_folder(path), model_name)
    return SampleSettings(folder, share, pictures, read_sample_bounds(read_properties(text)))


def read_sampling(settings: Mapping[str, Any], place: str) -> tuple[float, bool]:
    """Read the share of requests, and whether their pictures are kept, of a version in `models`. Raises ConfigError."""
    share, pictures = settings.get(SHARE_KEY, 0.0), settings.get(PICTURES_KEY, False)
    if type(share) not in (int, float) or not math.isfinite(share) or not 0 <= share <= 1:
        raise ConfigError(f"{place}: {SHARE_KEY}: expected a number from 0, for none, to 1, for all; got {share!r}")
    if type(pictures) is not bool:
        raise ConfigError(f"{place}: {PICTURES_KEY}: expected true or false, got {pictures!r}")
    if pictures and not share:
        raise ConfigError(f"{place}: {PICTURES_KEY} keeps none without a {SHARE_KEY}; add one")
    return float(share), pictures


def read_sample_bounds(properties: Mapping[str, str]) -> SampleBounds:
    """Read how much is kept of each model, and how long. Raises ConfigError."""
    megabytes = read_count(properties, SIZE_KEY, DEFAULT_MB, most=MOST_MB)
    return SampleBounds(megabytes * MEBI, read_count(properties, DAYS_KEY, DEFAULT_DAYS, most=MOST_DAYS))


def samples_folder(config: Path) -> Path:
    """Return where the server of a `config.properties` keeps samples, a folder for each model."""
    return state_folder(config) / "samples"


def model_folder(samples: Path, model_name: str) -> Path:
    """Return the folder of a model, whatever its name has."""
    name = quote(model_name, safe="")
    return samples / (f"%2E{name[1:]}" if name.startswith(".") else name)
