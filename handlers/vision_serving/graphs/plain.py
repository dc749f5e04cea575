"""Networks that map one normalised image tensor to logits, or to dense boxes and scores."""

from torch import Tensor, nn

from vision_serving.errors import ConfigError


class ClassifierGraph(nn.Module):
    """Gives `logits` (N, C)."""

    def __init__(self, network: nn.Module, normalize: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.normalize = normalize

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        logits = self.network(self.normalize(pixels))
        if not isinstance(logits, Tensor) or logits.dim() != 2:
            raise ConfigError(
                f"a classifier gives logits (N, C), {type(self.network).__name__} gave {_describe(logits)}"
            )
        return {"logits": logits}


class DetectorGraph(nn.Module):
    """For networks that give `{"boxes": (N, Q, 4) xyxy in model pixels, "scores": (N, Q, C) in [0, 1]}` themselves."""

    def __init__(self, network: nn.Module, normalize: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.normalize = normalize

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        outputs = self.network(self.normalize(pixels))
        if not isinstance(outputs, dict) or not {"boxes", "scores"} <= outputs.keys():
            expected = "a detector gives {'boxes': (N, Q, 4), 'scores': (N, Q, C)}"
            raise ConfigError(f"{expected}, {type(self.network).__name__} gave {_describe(outputs)}")
        return {"boxes": outputs["boxes"], "scores": outputs["scores"]}


def _describe(outputs: object) -> str:
    if isinstance(outputs, Tensor):
        return f"a tensor {tuple(outputs.shape)}"
    return f"a {type(outputs).__name__}" + (f" of {sorted(outputs)}" if isinstance(outputs, dict) else "")
