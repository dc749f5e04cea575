"""The JSON files that a user's recipe names."""

from pathlib import Path
from typing import Any

import orjson

from vision_serving.errors import ConfigError


def read_json(path: Path) -> Any:
    """Raises ConfigError."""
    try:
        return orjson.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such file") from error
    except (OSError, orjson.JSONDecodeError) as error:
        raise ConfigError(f"{path}: not valid JSON ({error})") from error
