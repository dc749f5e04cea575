"""What every exporter is given."""

from dataclasses import dataclass

from torch import nn
from vision_serving.config import Precision, Task

from mar_tools.checkpoints import Checkpoint


@dataclass(frozen=True)
class ExportJob:
    """A graph in eval mode, the checkpoint that it was built from, and the precision to export."""

    graph: nn.Module
    checkpoint: Checkpoint
    task: Task
    precision: Precision
    python_file: str | None = None
