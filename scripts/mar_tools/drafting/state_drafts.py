"""A state dict -> a recipe. What its names alone tell is told before PyTorch is loaded, which takes seconds."""

from pathlib import Path

from mar_tools.drafting.drafts import Draft, Hints
from mar_tools.models.file_kinds import list_tensor_names
from mar_tools.models.traces import find_trace
from vision_serving.errors import ConfigError


def draft_state(path: Path, hints: Hints) -> Draft:
    """Raises ConfigError for a file that is no state dict, and for one that fits no architecture that is known."""
    trace = find_trace(list_tensor_names(path))
    if trace is not None:
        raise ConfigError(f"{path}: {trace}")
    from mar_tools.drafting.weight_drafts import draft_weights

    return draft_weights(path, hints)
