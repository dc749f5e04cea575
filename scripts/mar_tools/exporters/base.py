"""What every exporter is given."""

from dataclasses import dataclass

from torch import nn

from mar_tools.checkpoints import Checkpoint
from vision_serving.config import Precision, Task


@dataclass(frozen=True)
class ExportJob:
    """A graph in eval mode, the checkpoint that it was built from, and the precision to export."""

    graph: nn.Module
    checkpoint: Checkpoint
    task: Task
    precision: Precision
    python_file: str | None = None
