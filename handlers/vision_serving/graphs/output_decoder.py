"""What a network gives becomes the named outputs of an artifact, as its `output:` says."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from torch import Tensor, nn

from vision_serving.errors import ConfigError
from vision_serving.geometry import SizeHW
from vision_serving.graphs.detections import SPLITS, check_decoded, finish, is_known
from vision_serving.graphs.layouts import describe_fits, name_values
from vision_serving.graphs.outputs import OutputFormat
from vision_serving.graphs.python_files import load_attribute
from vision_serving.options import Task

SMALLEST_PROBABILITY = 1e-12  # its logarithm is finite, also in half precision
SMALLEST_INDEPENDENT = 1e-6  # so that 1 less it is not 1 in float32


class OutputDecoder(nn.Module):
    """What a network gives and its images (N, 3, H, W) -> named outputs of the artifact.

    size_hw: of all images, where they have one size; numbers then, also where a graph is traced.

    Raises ConfigError for an output of another task, and for a file without `decode`.
    """

    def __init__(self, task: Task, output: OutputFormat, size_hw: SizeHW | None = None) -> None:
        super().__init__()
        self.format, self.form = output.form_for(task)
        self.output = output if output.format or output.decode else output.model_copy(update={"format": self.format})
        self.size_hw = size_hw
        self.function = None if output.decode is None else load_attribute(output.folder, output.decode, "decode")
        if output.strides and size_hw is None:
            raise ConfigError("output `strides` needs images of one size: resize mode letterbox or exact, or a crop")

    @property
    def instances(self) -> Literal["masks", "corners"] | None:
        """Return what it gives of an object beyond its box."""
        return "masks" if self.output.masks else "corners" if self.output.is_oriented else None

    def forward(self, outputs: Any, images: Tensor, network_name: str = "the network") -> dict[str, Tensor]:
        """Raises ConfigError when a network's answer has another form."""
        if self.function is None:
            values = self.pick_values(outputs, network_name)
            check_count(values, images, network_name)
            return self.decode(values, images)
        size_hw = self.size_of(images)
        found = check_decoded(self.function(outputs, size_hw), self.output)
        check_count((found.boxes, found.scores), images, "`decode`")
        return finish(found, self.output, size_hw)

    def decode(self, values: tuple[Tensor, ...], images: Tensor) -> dict[str, Tensor]:
        """Decode the values that `choose` chose, in its order."""
        if self.format in SPLITS:
            size_hw = self.size_of(images)
            return finish(SPLITS[self.format](values, self.output, size_hw), self.output, size_hw)
        return SINGLE[self.format](values[0], self.output)

    def size_of(self, images: Tensor) -> SizeHW:
        return self.size_hw or (images.shape[-2], images.shape[-1])

    def pick_values(self, outputs: Any, network_name: str) -> tuple[Tensor, ...]:
        """Return what the decoder needs of a network's answer. Raises ConfigError when that has another form."""
        found = name_values(outputs)
        values = [found[key] for key in self.choose(list(found))]
        self.check_shapes([v.shape if isinstance(v, Tensor) else () for v in values], found, network_name)
        return tuple(values)

    def choose(self, keys: Sequence[Any]) -> list[Any]:
        """Choose among the names or places of a network's values; none where it cannot be told which is which."""
        wanted, stated = list(self.output.values_of(self.form)), dict(self.output.names or {})
        if self.output.index is not None:
            stated[wanted[0]] = self.output.index
        by_name = {name: name for name in wanted if name in keys}
        if len(wanted) == 1 and not by_name:
            alias = next((name for name in self.form.aliases if name in keys), None)
            by_name = {} if alias is None else {wanted[0]: alias}
        in_order = dict(zip(wanted, range(len(keys)), strict=True)) if len(keys) == len(wanted) and not by_name else {}
        found = [stated.get(name, by_name.get(name, in_order.get(name))) for name in wanted]
        places = [key if isinstance(key, int) else keys.index(key) if key in keys else None for key in found]
        chosen = [keys[place] for place in places if place is not None and place < len(keys)]
        return chosen if len(chosen) == len(wanted) else []

    def check_shapes(self, shapes: Sequence[Any], found: Mapping[Any, Any], network_name: str) -> None:
        """Check the dimensions of what was chosen, None where not known. Raises ConfigError with what would fit.

        found: all values of the network, or their shapes.
        """
        wanted = self.output.values_of(self.form)
        dims = [(text.count(",") + 1, *self.form.dims) for text in wanted.values()]
        if len(shapes) == len(dims) and all(
            shape is None or len(shape) in counts for shape, counts in zip(shapes, dims, strict=True)
        ):
            return
        needs = " and ".join(f"{name} {shape}" for name, shape in wanted.items())
        raise ConfigError(
            f"output format {self.format!r} needs {needs}; {network_name} gave {describe_fits(found, self.form.task)}"
        )


def check_count(values: Sequence[Tensor], images: Tensor, giver: str) -> None:
    """Check that each value has a place for each image, where a tracer does not follow their number.

    Raises ConfigError.
    """
    counts = [value.shape[0] for value in values]
    if any(is_known(count) and is_known(images.shape[0]) and count != images.shape[0] for count in counts):
        raise ConfigError(
            f"{giver} gave {[tuple(value.shape) for value in values]} for {images.shape[0]} images; expected as many "
            "as images, first. A network that chooses its boxes itself gives as many as it finds; export it without"
        )


def decode_logits(value: Tensor, _: OutputFormat) -> dict[str, Tensor]:
    return {"logits": value}


def decode_probabilities(scores: Tensor, output: OutputFormat) -> dict[str, Tensor]:
    """Return logits whose softmax, or sigmoid, is those probabilities."""
    if output.activation == "sigmoid":
        scores = scores.clamp(min=SMALLEST_INDEPENDENT, max=1 - SMALLEST_INDEPENDENT)
        return {"logits": (scores / (1 - scores)).log()}
    return {"logits": scores.clamp(min=SMALLEST_PROBABILITY).log()}


def decode_vector(vector: Tensor, output: OutputFormat) -> dict[str, Tensor]:
    """Raises ConfigError for several vectors an image without `pool`."""
    if vector.dim() == 3 and output.pool is not None:
        vector = vector[:, 0] if output.pool == "first" else vector.mean(dim=1)
    elif vector.dim() == 4 and output.pool == "mean":
        vector = vector.mean(dim=(2, 3))
    elif vector.dim() == 4 and tuple(vector.shape[2:]) == (1, 1):
        vector = vector.flatten(1)
    if vector.dim() != 2:
        raise ConfigError(
            f"the network gives {tuple(vector.shape)} and not one vector an image; say `output: {{pool: mean}}`, or "
            "of tokens `pool: first`"
        )
    return {"embedding": vector}


SINGLE: dict[str, Callable[[Tensor, OutputFormat], dict[str, Tensor]]] = {
    "logits": decode_logits,
    "probabilities": decode_probabilities,
    "vector": decode_vector,
}
