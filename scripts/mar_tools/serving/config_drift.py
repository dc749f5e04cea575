"""Where a running server differs from its `config.properties`, by the management API or by an edit of the file."""

from collections.abc import Iterator, Sequence

from mar_tools.serving.model_status import ModelStatus
from vision_serving.worker.server_settings import read_model, read_properties

# What TorchServe takes for what `models` does not say of a model.
DEFAULTS = {"minWorkers": 1, "batchSize": 1, "maxBatchDelay": 100}


def find_differences(models: Sequence[ModelStatus], properties_text: str) -> list[str]:
    """Return a line each: what the server does, and what the file says.

    Raises ConfigError for a file that cannot be read.
    """
    return [line for model in models for line in _differences_of(model, properties_text)]


def _differences_of(model: ModelStatus, properties_text: str) -> Iterator[str]:
    found = {"minWorkers": model.workers, "batchSize": model.batch_size, "maxBatchDelay": model.max_batch_delay_ms}
    named = read_model(properties_text, model.model).get(model.version)
    if named is None:
        named = {"minWorkers": read_properties(properties_text).get("default_workers_per_model", 1)}
    expected = {**DEFAULTS, **named}
    for key, value in found.items():
        if value != int(expected[key]):
            yield f"{model.model} {model.version}: {key} is {value}, and {expected[key]} after a restart"
