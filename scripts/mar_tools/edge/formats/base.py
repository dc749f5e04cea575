"""What every format states and is given."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mar_tools.exporting.exporters.base import ExportJob
from vision_serving.errors import ConfigError

CARRIED_PYTHON = {"preprocess.py": "preprocess.py", "postprocess.py": "postprocess.py", "predict.py": "predict.py"}


@dataclass(frozen=True)
class Written:
    """What a format wrote. artifact: its file. batch: how many pictures it takes at a time, None for any number.

    quantization: how int8 came about. about: what else model.json tells, such as the operators that a runtime needs.
    """

    artifact: str
    batch: int | None = None
    quantization: Mapping[str, Any] = field(default_factory=dict)
    about: Mapping[str, Any] = field(default_factory=dict)


def require_fixed_size(job: ExportJob, name: str) -> None:
    """Raises ConfigError for a model that takes pictures of any size."""
    if not job.has_fixed_size:
        raise ConfigError(
            f"format {name!r} needs pictures of one size, and `preprocessing` keeps their shape; use `letterbox` or "
            "`crop`, or --format ort"
        )
