"""The graph of a network: that of a torchvision detector by its class, else one by the format of its outputs."""

from collections.abc import Mapping, Sequence
from importlib import import_module

from torch import Tensor, nn

from vision_serving.config import PreprocessingConfig
from vision_serving.graphs.inputs import NO_INPUTS, SizeInput, make_size
from vision_serving.graphs.output_decoder import OutputDecoder
from vision_serving.graphs.outputs import OutputFormat
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
    """Gives `logits` (N, C), or `boxes` (N, Q, 4) and `scores` (N, Q, C), or (N, Q) with `class_ids` (N, Q).

    Turned boxes have `corners` (N, Q, 8) too, masks `coefficients` (N, Q, P) and `prototypes` (N, P, H, W).
    """

    def __init__(
        self, network: nn.Module, normalize: nn.Module, decoder: OutputDecoder, inputs: Sequence[SizeInput] = ()
    ) -> None:
        super().__init__()
        self.network = network
        self.normalize = normalize
        self.decoder = decoder
        self.inputs = tuple(inputs)
        self.instances = decoder.instances

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        images = self.normalize(pixels)
        sizes = [make_size(kind, images, self.decoder.size_of(images)) for kind in self.inputs]
        outputs: dict[str, Tensor] = self.decoder(self.network(images, *sizes), images, type(self.network).__name__)
        return outputs


def build_graph(
    network: nn.Module,
    task: Task,
    preprocessing: PreprocessingConfig,
    output: OutputFormat | None = None,
    inputs: Mapping[str, SizeInput] = NO_INPUTS,
) -> nn.Module:
    """Return the graph of a network in eval mode. inputs: what it takes beside the images, in order.

    Paths in `output` are absolute. Raises ConfigError for an output that does not fit the task.
    """
    normalize = Normalize(preprocessing)
    graph_class = find_detector_graph(network) if task == "detection" else None
    if graph_class is not None:
        graph: nn.Module = graph_class(network.eval(), normalize)
    else:
        decoder = OutputDecoder(task, output or OutputFormat(), preprocessing.fixed_hw)
        graph = PlainGraph(network.eval(), normalize, decoder, tuple(inputs.values()))
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
