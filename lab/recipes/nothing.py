"""A classifier of ten classes that looks at the mean colour."""

from torch import Tensor, nn


class Nothing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.classify = nn.Linear(3, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Turn (N, 3, H, W) into logits (N, 10)."""
        logits: Tensor = self.classify(images.mean(dim=(2, 3)))
        return logits
