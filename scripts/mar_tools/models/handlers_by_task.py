"""The handler of each task: the class that the tools run in process, and the entry file that an archive names."""

from image_classification import ImageClassificationHandler
from object_detection import ObjectDetectionHandler
from vision_serving.options import Task
from vision_serving.worker.service import TorchServeHandler

HANDLERS: dict[Task, type[TorchServeHandler]] = {
    "classification": ImageClassificationHandler,
    "detection": ObjectDetectionHandler,
}


def find_entry_file(task: Task) -> str:
    """Return the name of a task's file in `handlers/`."""
    return f"{HANDLERS[task].__module__}.py"
