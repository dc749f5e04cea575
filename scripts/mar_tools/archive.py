"""Read a `.mar`, ours or another's. Nothing here needs PyTorch, so that a server's start does not wait for it."""

import zipfile
from pathlib import Path

import orjson

from vision_serving.errors import ConfigError

MANIFEST = "MAR-INF/MANIFEST.json"


def check_archive(archive: Path) -> tuple[str, str]:
    """Its model name and version. Raises ConfigError when a file is not a model archive, or an entry is damaged."""
    try:
        with zipfile.ZipFile(archive) as packed:
            damaged = packed.testzip()
            model = orjson.loads(packed.read(MANIFEST))["model"]
            identity = (str(model["modelName"]), str(model.get("modelVersion", "")))
    except FileNotFoundError as error:
        raise ConfigError(f"{archive}: no such archive; build it with build_model.py") from error
    except (zipfile.BadZipFile, OSError, NotImplementedError) as error:
        raise ConfigError(f"{archive}: not a readable archive ({error})") from error
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"{archive}: not a model archive (no usable {MANIFEST})") from error
    if damaged is not None:
        raise ConfigError(f"{archive}: its entry {damaged} is damaged")
    return identity


def extract_archive(archive: Path, folder: Path) -> None:
    """Unpack a `.mar` as TorchServe would. Raises ConfigError when it is not one."""
    check_archive(archive)
    with zipfile.ZipFile(archive) as packed:
        packed.extractall(folder)
