"""A network that takes its shapes from its weights, as structured pruning leaves them: fewer channels, the same layers.

What shapes do not tell is refused: how many heads an attention has, or groups a group norm.
"""

import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from vision_serving.errors import ConfigError

HEAD_COUNTS = ("num_heads", "n_heads", "num_attention_heads")
# Of a dense detector: the network's own numbers of anchors and classes say how these are read.
DENSE_HEADS = re.compile(r"(cls_logits|bbox_reg|bbox_pred|bbox_ctrness|_head\.module_list\.\d+(\.1)?)$")


def take_shapes(network: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Give the layers of a network the shapes of a state dict, with values to be loaded.

    Raises ConfigError where shapes alone do not say how a layer computes.
    """
    modules = dict(network.named_modules())
    for name, module in modules.items():
        own = {**module._parameters, **module._buffers}
        found = {
            key: state[f"{name}.{key}".removeprefix(".")] for key in own if f"{name}.{key}".removeprefix(".") in state
        }
        changed = {key: values.shape for key, values in found.items() if values.shape != getattr(module, key).shape}
        if not changed:
            continue
        fault = _find_fault(name, module, modules.get(name.rpartition(".")[0]), changed)
        if fault is not None:
            raise ConfigError(f"`shapes: weights`: {name} {fault}")
        _set_sizes(module, changed)
        for key, shape in changed.items():
            values = torch.empty(shape, dtype=getattr(module, key).dtype)
            if key in module._parameters:
                module._parameters[key] = nn.Parameter(values)
            else:
                module._buffers[key] = values


def _find_fault(
    name: str, module: nn.Module, parent: nn.Module | None, changed: Mapping[str, torch.Size]
) -> str | None:
    """Return why the new shapes do not say how the layer computes, as the end of a sentence."""
    if any(hasattr(owner, count) for owner in (module, parent) for count in HEAD_COUNTS):
        return "is part of an attention, and shapes do not say how many heads are left"
    if any(len(shape) != getattr(module, key).dim() for key, shape in changed.items()):
        return "has another number of dimensions in the weights, so it is another layer"
    if isinstance(module, nn.GroupNorm) and module.num_groups > 1:
        return "is a group norm, and shapes do not say how many groups are left"
    if isinstance(module, nn.Conv2d) and "weight" in changed:
        if changed["weight"][2:] != module.weight.shape[2:]:
            return f"has a kernel of {tuple(changed['weight'][2:])} in the weights, expected {module.kernel_size}"
        if DENSE_HEADS.search(name) and changed["weight"][0] != module.out_channels:
            return "gives another number of values in the weights; `num_classes` goes under `model: arguments:`"
    return None


def _set_sizes(module: nn.Module, changed: Mapping[str, torch.Size]) -> None:
    """Set what a layer says of itself; exporters and the layer's own checks read it."""
    shape = changed.get("weight")
    if shape is None:
        return
    if isinstance(module, nn.Conv2d):
        outer, inner = shape[0], shape[1]
        if module.groups == module.in_channels > 1:  # depthwise: a group for each channel
            module.groups = outer // (module.out_channels // module.in_channels)
        module.in_channels, module.out_channels = inner * module.groups, outer
    elif isinstance(module, nn.Linear):
        module.out_features, module.in_features = shape
    elif isinstance(module, nn.modules.batchnorm._BatchNorm):
        module.num_features = shape[0]
    elif isinstance(module, nn.LayerNorm):
        module.normalized_shape = tuple(shape)
    elif isinstance(module, nn.GroupNorm):
        module.num_channels = shape[0]
