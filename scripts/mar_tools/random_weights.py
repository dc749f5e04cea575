"""Networks without training, to time and to verify with: made to tell pictures and classes apart."""

import re

import torch
from torch import nn

from mar_tools.images import generate_images
from vision_serving.config import PreprocessingConfig

CLASS_LAYERS = re.compile(r"(cls_logits|cls_score|classification_head\.module_list\.\d+(\.1)?)$")
CLASS_SPREAD = 8.0


def spread_class_scores(network: nn.Module) -> None:
    """A random network scores everything alike, and which is best is chance: let its class layers tell things apart.

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
    norms = [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    if not norms:
        return
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a cumulative average
        norm.train()
    with torch.inference_mode():
        graph(generate_images(count=4, preprocessing=preprocessing))
    network.eval().requires_grad_(True)
