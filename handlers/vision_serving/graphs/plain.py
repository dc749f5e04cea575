"""Networks that map one normalised image tensor to logits, or to boxes and scores in one of the output formats."""

from torch import Tensor, nn

from vision_serving.graphs.outputs import OutputDecoder


class PlainGraph(nn.Module):
    """Gives `logits` (N, C), or dense `boxes` (N, Q, 4) and `scores` (N, Q, C)."""

    def __init__(self, network: nn.Module, normalize: nn.Module, decoder: OutputDecoder) -> None:
        super().__init__()
        self.network = network
        self.normalize = normalize
        self.decoder = decoder

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        images = self.normalize(pixels)
        values = self.decoder.read_values(self.network(images), type(self.network).__name__)
        return self.decoder(values, images)
