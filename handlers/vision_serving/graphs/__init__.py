"""What an artifact computes, as torch modules: uint8 pixels (N, H, W, 3) in, named outputs out.

The eager backend runs these modules, every exporter exports them, so no backend can normalise or decode differently.
"""

from importlib import import_module

from torch import nn

from vision_serving.config import PreprocessingConfig, Task
from vision_serving.graphs.pixels import Normalize

# torchvision detectors, by class name; everything else is wrapped according to its task.
DETECTOR_GRAPHS = {
    "SSD": "vision_serving.graphs.one_stage:SsdGraph",
    "RetinaNet": "vision_serving.graphs.one_stage:RetinaNetGraph",
    "FCOS": "vision_serving.graphs.one_stage:FcosGraph",
    "FasterRCNN": "vision_serving.graphs.two_stage:RcnnGraph",
}
TASK_GRAPHS: dict[Task, str] = {
    "classification": "vision_serving.graphs.plain:ClassifierGraph",
    "detection": "vision_serving.graphs.plain:DetectorGraph",
}


def build_graph(network: nn.Module, task: Task, preprocessing: PreprocessingConfig) -> nn.Module:
    """The graph of a network in eval mode; Mask and Keypoint R-CNN are found as the Faster R-CNN they extend."""
    names = [kind.__name__ for kind in type(network).__mro__] if task == "detection" else []
    families = (DETECTOR_GRAPHS[name] for name in names if name in DETECTOR_GRAPHS)
    module_name, _, class_name = next(families, TASK_GRAPHS[task]).partition(":")
    graph_class = getattr(import_module(module_name), class_name)
    graph: nn.Module = graph_class(network.eval(), Normalize(preprocessing.mean, preprocessing.std))
    return graph.eval().requires_grad_(False)
