"""The words for class ids, from a file."""

from pathlib import Path

from vision_serving.errors import ConfigError
from vision_serving.validation import MOST_BYTES, read_json


def read_labels_file(path: Path) -> list[str]:
    """Return a JSON list of labels, or TorchServe's index_to_name.json: {"0": "cat"} or {"0": ["n02123045", "cat"]}."""
    content = read_json(path, most_bytes=MOST_BYTES)
    if isinstance(content, dict) and set(content) == {str(index) for index in range(len(content))}:
        content = [content[str(index)] for index in range(len(content))]
        content = [entry[-1] if isinstance(entry, list) and entry else entry for entry in content]
    if not isinstance(content, list) or not content or not all(isinstance(label, str) for label in content):
        raise ConfigError(f"{path}: expected a list of labels, or an object from '0' to 'C-1'")
    return content
