"""Networks that map one normalised image tensor to logits, or to dense boxes and scores."""

from torch import Tensor, nn


class ClassifierGraph(nn.Module):
    """Gives `logits` (N, C)."""

    def __init__(self, network: nn.Module, normalize: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.normalize = normalize

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        return {"logits": self.network(self.normalize(pixels))}


class DetectorGraph(nn.Module):
    """For networks that give `{"boxes": (N, Q, 4) xyxy in model pixels, "scores": (N, Q, C) in [0, 1]}` themselves."""

    def __init__(self, network: nn.Module, normalize: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.normalize = normalize

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        outputs = self.network(self.normalize(pixels))
        return {"boxes": outputs["boxes"], "scores": outputs["scores"]}
