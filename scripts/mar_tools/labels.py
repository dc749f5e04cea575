"""The words for class ids, from a file."""

from pathlib import Path

import orjson

from vision_serving.errors import ConfigError


def read_labels_file(path: Path) -> list[str]:
    """A JSON list of labels, or TorchServe's index_to_name.json: {"0": "cat"} or {"0": ["n02123045", "cat"]}."""
    try:
        content = orjson.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such labels file") from error
    except (OSError, orjson.JSONDecodeError) as error:
        raise ConfigError(f"{path}: not valid JSON ({error})") from error
    if isinstance(content, dict) and set(content) == {str(index) for index in range(len(content))}:
        content = [content[str(index)] for index in range(len(content))]
        content = [entry[-1] if isinstance(entry, list) and entry else entry for entry in content]
    if not isinstance(content, list) or not content or not all(isinstance(label, str) for label in content):
        raise ConfigError(f"{path}: expected a list of labels, or an object from '0' to 'C-1'")
    return content
