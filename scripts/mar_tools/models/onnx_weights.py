"""The files beside an ONNX file that hold its weights, as exporters write them for large models."""

from collections.abc import Iterator
from pathlib import Path

import onnx

from vision_serving.errors import ConfigError


def find_external_weights(path: Path) -> list[Path]:
    """Return the files beside an ONNX file that hold its weights. Raises ConfigError where one is missing."""
    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:  # protobuf has errors of its own
        raise ConfigError(f"{path}: no ONNX file ({type(error).__name__})") from error
    return list_external_weights(model, path)


def list_external_weights(model: onnx.ModelProto, path: Path) -> list[Path]:
    """Return them for a model that was loaded without them. Raises ConfigError where one is missing."""
    locations = {entry.value for tensor in _tensors(model) for entry in tensor.external_data if entry.key == "location"}
    elsewhere = sorted(location for location in locations if Path(location).name != location)
    if elsewhere:
        raise ConfigError(f"{path}: its weights are in {elsewhere[0]!r}; save it with its weights beside it")
    missing = sorted(location for location in locations if not path.with_name(location).is_file())
    if missing:
        raise ConfigError(
            f"{path}: its weights are in {missing[0]!r}, which is not beside it; bring that file under this name, or "
            "export again with `external_data=False`"
        )
    return sorted(path.with_name(location) for location in locations)


def _tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Yield the weights, and the constants of nodes."""
    yield from model.graph.initializer
    for node in model.graph.node:
        yield from (attribute.t for attribute in node.attribute if attribute.HasField("t"))
