"""Weights in several files, as large models are saved: parts named `model-00001-of-00002`, and an index of them.

    model-00001-of-00002.safetensors  model-00002-of-00002.safetensors  model.safetensors.index.json

Any of these files stands for all. Needs no PyTorch.
"""

import re
from pathlib import Path

import orjson

from vision_serving.errors import ConfigError
from vision_serving.validation import MOST_BYTES

SHARD = re.compile(r"(?P<before>.+-)(?P<number>\d{5})-of-(?P<count>\d{5})(?P<after>\.\w+)")
MAP = "weight_map"  # of an index: the file of each tensor
SHOWN = 3


def list_shards(path: Path) -> list[Path]:
    """Return all files of a model of which this is one, or the index; none for a model of one file.

    Raises ConfigError where one is missing, and for an index of files that lie elsewhere.
    """
    found = SHARD.fullmatch(path.name)
    if found is not None:
        count = int(found["count"])
        names = [f"{found['before']}{number:05}-of-{count:05}{found['after']}" for number in range(1, count + 1)]
    else:
        names = _read_index(path)
    missing = [name for name in names if not path.with_name(name).is_file()]
    if missing:
        what = "the index of a model" if found is None else "a part of a model"
        more = f" and {len(missing) - SHOWN} more" if len(missing) > SHOWN else ""
        raise ConfigError(
            f"{path}: {what} in {len(names)} files, and {', '.join(missing[:SHOWN])}{more} is not beside it; bring all "
            "of them, or name the folder that has them and its config.json"
        )
    return [path.with_name(name) for name in names]


def _read_index(path: Path) -> list[str]:
    """Return the names of the files of an index; none of another file."""
    if path.suffix != ".json" or path.stat().st_size > MOST_BYTES:
        return []
    try:
        document = orjson.loads(path.read_bytes())
    except orjson.JSONDecodeError:
        return []
    files = document.get(MAP) if isinstance(document, dict) else None
    names = sorted({str(name) for name in files.values()}) if isinstance(files, dict) else []
    strange = [name for name in names if Path(name).name != name or name.endswith(".json")]
    if strange:
        raise ConfigError(f"{path}: its {MAP} names {strange[0]!r}; expected files of weights that lie beside it")
    return names
