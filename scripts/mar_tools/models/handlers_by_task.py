"""What the steps agree on. It imports little: the servers of other frameworks have it in them."""

from image_classification import ImageClassificationHandler
from object_detection import ObjectDetectionHandler
from vision_serving.options import Task
from vision_serving.worker.service import TorchServeHandler

REFERENCE = "eager-fp32"  # the export that the others of a model are compared with
ENTRY_FILES: dict[Task, str] = {"classification": "image_classification.py", "detection": "object_detection.py"}
HANDLERS: dict[Task, type[TorchServeHandler]] = {
    "classification": ImageClassificationHandler,
    "detection": ObjectDetectionHandler,
}
