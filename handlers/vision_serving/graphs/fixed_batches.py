"""Networks and artifacts that take one number of images at a time: any batch goes through them in parts."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn


class FixedBatchNetwork(nn.Module):
    """A network that takes `size` images at a time, in the place of one that takes any number."""

    def __init__(self, network: nn.Module, size: int) -> None:
        super().__init__()
        self.network = network
        self.size = size

    def forward(self, images: Tensor, *others: Tensor) -> Any:
        return run_in_parts(self.network, self.size, images, *others)


def run_in_parts(run: Callable[..., Any], size: int, *batches: Tensor) -> Any:
    """Run batches (N, ...) in parts of `size`, the last one filled up by the last image; join what comes, N first.

    What a part gives of another number than its images belongs to none of them: that of the first part is returned.
    """
    count = len(batches[0])
    numbers = torch.arange(count + -count % size).clamp(max=count - 1)
    return _join([run(*(batch[part] for batch in batches)) for part in torch.split(numbers, size)], count, size)


def _join(parts: Sequence[Any], count: int, size: int) -> Any:
    first = parts[0]
    if isinstance(first, Mapping):
        return {name: _join([part[name] for part in parts], count, size) for name in first}
    if isinstance(first, (tuple, list)):
        return tuple(_join(values, count, size) for values in zip(*parts, strict=True))
    is_of_images = isinstance(first, Tensor) and first.dim() > 0 and len(first) == size
    return torch.cat(list(parts))[:count] if is_of_images else first
