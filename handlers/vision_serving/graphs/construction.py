"""The graph of a network: that of a torchvision detector by its class, else one by the format of its outputs."""

from importlib import import_module

from torch import Tensor, nn

from vision_serving.config import PreprocessingConfig
from vision_serving.graphs.outputs import OutputDecoder, OutputFormat
from vision_serving.graphs.pixels import Normalize
from vision_serving.options import Task

# torchvision detectors, by class name; everything else is decoded according to its output format.
DETECTOR_GRAPHS = {
    "SSD": "vision_serving.graphs.one_stage:SsdGraph",
    "RetinaNet": "vision_serving.graphs.one_stage:RetinaNetGraph",
    "FCOS": "vision_serving.graphs.one_stage:FcosGraph",
    "FasterRCNN": "vision_serving.graphs.two_stage:RcnnGraph",
    "MaskRCNN": "vision_serving.graphs.instance_heads:MaskRcnnGraph",
    "KeypointRCNN": "vision_serving.graphs.instance_heads:KeypointRcnnGraph",
}


class PlainGraph(nn.Module):
    """Gives `logits` (N, C), or dense `boxes` (N, Q, 4) and `scores` (N, Q, C)."""

    def __init__(self, network: nn.Module, normalize: nn.Module, decoder: OutputDecoder) -> None:
        super().__init__()
        self.network = network
        self.normalize = normalize
        self.decoder = decoder

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        images = self.normalize(pixels)
        values = self.decoder.pick_values(self.network(images), type(self.network).__name__)
        return self.decoder(values, images)


def build_graph(
    network: nn.Module, task: Task, preprocessing: PreprocessingConfig, output: OutputFormat | None = None
) -> nn.Module:
    """Return the graph of a network in eval mode."""
    normalize = Normalize(preprocessing)
    graph_class = find_detector_graph(network) if task == "detection" else None
    if graph_class is not None:
        graph: nn.Module = graph_class(network.eval(), normalize)
    else:
        graph = PlainGraph(network.eval(), normalize, OutputDecoder(task, output or OutputFormat()))
    return graph.eval().requires_grad_(False)


def find_detector_graph(network: nn.Module) -> type[nn.Module] | None:
    """Return the graph class of a torchvision detector, None for every other network."""
    names = [kind.__name__ for kind in type(network).__mro__ if kind.__module__.startswith("torchvision.")]
    family = next((DETECTOR_GRAPHS[name] for name in names if name in DETECTOR_GRAPHS), None)
    if family is None:
        return None
    module_name, _, class_name = family.partition(":")
    graph_class: type[nn.Module] = getattr(import_module(module_name), class_name)
    return graph_class
