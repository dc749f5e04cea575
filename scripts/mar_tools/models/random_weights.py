"""Networks without training, to time and to verify with: made to tell pictures and classes apart."""

import re

import torch
from torch import Tensor, nn

from mar_tools.models.example_pixels import load_pixels
from vision_serving.config import PreprocessingConfig

CLASS_LAYERS = re.compile(
    r"(cls_logits|cls_score|classification_head\.module_list\.\d+(\.1)?"  # torchvision
    r"|class_embed(\.\d+)?|class_labels_classifier(\.layers\.\d+)?|enc_score_head)$"  # transformers
)
CLASS_SPREAD = 8.0
# With most activations on the positive side, where ReLU and its kin are linear, a deep random network does not amplify
# the rounding noise of its first layers into chaos; trained networks do not either.
POSITIVE_BIAS = 1.0


def spread_class_scores(network: nn.Module) -> None:
    """Let class layers tell things apart: a random network scores everything alike, and which is best is chance.

    torchvision gives a detector's class layers small weights, and the head of a ViT zeros.
    """
    for name, layer in network.named_modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            if not layer.weight.any():
                nn.init.normal_(layer.weight, std=layer.weight[0].numel() ** -0.5)
            elif CLASS_LAYERS.search(name):
                layer.weight.data.mul_(CLASS_SPREAD)


def settle_batch_norm(network: nn.Module, graph: nn.Module, preprocessing: PreprocessingConfig) -> None:
    """Give a random network batch-norm statistics of real activations: without them they explode or vanish."""
    norms = [module for module in network.modules() if "running_var" in module._buffers]
    if not norms:
        return
    hooks = []
    for norm in norms:
        if isinstance(norm, nn.modules.batchnorm._BatchNorm):
            norm.reset_running_stats()
            norm.momentum = None  # a cumulative average
            if norm.bias is not None:
                norm.bias.data.fill_(POSITIVE_BIAS)
            norm.train()
        else:
            hooks.append(norm.register_forward_pre_hook(_take_statistics))
    with torch.inference_mode():
        graph(load_pixels(4, preprocessing))
    for hook in hooks:
        hook.remove()
    network.eval().requires_grad_(True)


def _take_statistics(frozen_norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    """Take them for a frozen batch norm, of which every detection library has its own: it never does it itself."""
    frozen_norm.get_buffer("running_mean").copy_(inputs[0].mean(dim=(0, 2, 3)))
    frozen_norm.get_buffer("running_var").copy_(inputs[0].var(dim=(0, 2, 3)))
