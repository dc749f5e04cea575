"""The handler of each task: the class that the tools run in process, and the entry file that an archive names."""

from importlib import import_module

from vision_serving.options import Task
from vision_serving.worker.service import TorchServeHandler

HANDLERS: dict[Task, str] = {
    "classification": "image_classification:ImageClassificationHandler",
    "detection": "object_detection:ObjectDetectionHandler",
    "embedding": "image_embedding:ImageEmbeddingHandler",
}


def new_handler(task: Task) -> TorchServeHandler:
    """Return the handler of a task, which has loaded nothing."""
    module_name, _, class_name = HANDLERS[task].partition(":")
    handler: TorchServeHandler = getattr(import_module(module_name), class_name)()
    return handler


def find_entry_file(task: Task) -> str:
    """Return the name of a task's file in `handlers/`."""
    return f"{HANDLERS[task].partition(':')[0]}.py"
