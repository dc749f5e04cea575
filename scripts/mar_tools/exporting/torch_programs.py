"""`torch.export` of a graph with a dynamic batch, and what its program needs before it is quantised."""

import warnings
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.fx import GraphModule

MAX_BATCH = 1024
CONVOLUTIONS = {torch.ops.aten.conv1d.default, torch.ops.aten.conv2d.default, torch.ops.aten.conv3d.default}


def export_program(graph: nn.Module, pixels: Tensor, strict: bool = False) -> ExportedProgram:
    """Export pixels uint8 (2, H, W, 3), of the only size that it will take. Raises whatever torch.export raises."""
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.export.export(graph, (pixels,), dynamic_shapes=(dynamic_batch(),), strict=strict)


def dynamic_batch() -> Mapping[int, Dim]:
    return {0: Dim("batch", min=1, max=MAX_BATCH)}


def separate_convolutions(program: ExportedProgram) -> GraphModule:
    """Return the program with a weight and bias of its own for every convolution, also where a module
    is called repeatedly.

    PT2E folds each batch norm into the convolution before it. Of a convolution without bias that is run several times,
    as a detector's head is on feature maps of several sizes, it then replaces the folded bias by zeros (torchao 0.18).
    """
    module = program.module()
    assert isinstance(module, GraphModule)
    for node in [node for node in module.graph.nodes if node.op == "get_attr"]:
        users = [user for user in node.users if user.target in CONVOLUTIONS]
        for number, user in enumerate(users[1:], 2):
            name = f"{node.target.replace('.', '_')}_{number}"
            module.register_parameter(name, nn.Parameter(module.get_parameter(node.target).detach().clone()))
            with module.graph.inserting_before(user):
                own = module.graph.get_attr(name)
                own.meta = dict(node.meta)  # its shape, which some quantisers read
                user.replace_input_with(node, own)
    module.recompile()
    return module
