"""A user's ONNX model with our pixel stage in front and our named outputs behind it: like an exported one."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import torch
from onnx import compose, version_converter
from torch import Tensor, nn

from mar_tools.exporting.onnx_files import (
    TYPES,
    ModelInput,
    check_size,
    dims_of,
    open_batch,
    opset_of,
    read_input,
    read_onnx,
)
from mar_tools.models.example_pixels import example_pixels
from vision_serving.config import PreprocessingConfig
from vision_serving.graphs.inputs import NO_INPUTS, SizeInput, make_size
from vision_serving.graphs.onnx_network import OnnxNetwork
from vision_serving.graphs.output_decoder import OutputDecoder
from vision_serving.graphs.outputs import OutputFormat
from vision_serving.graphs.pixels import Normalize
from vision_serving.options import Task

NEWEST_OPSET = 23  # of what torch exports
PIXELS, MODEL, OUTPUTS = "pixel_stage/", "model/", "output_stage/"
EXAMPLE_SIZE = 12  # of pictures of any size


def wrap_onnx(
    onnx_file: Path,
    preprocessing: PreprocessingConfig,
    task: Task,
    output_format: OutputFormat,
    inputs: Mapping[str, SizeInput] = NO_INPUTS,
) -> onnx.ModelProto:
    """Wrap it: `pixels` uint8 (N, H, W, 3) -> the outputs of `construction.PlainGraph`. N is dynamic.

    N may be the one number of images that the graph takes. inputs: what the model takes beside its image.

    Raises ConfigError for a file that is no model, an input that is no image or of another size than `preprocessing`
    makes, and outputs that are not of `output_format`.
    """
    model = read_onnx(onnx_file)
    model_input = read_input(model, onnx_file, inputs, preprocessing.channels)
    check_size(model_input, preprocessing, onnx_file)
    fixed_batch = open_batch(model, onnx_file)
    decoder = OutputDecoder(task, output_format, preprocessing.fixed_hw)
    value_names = find_values(model, decoder, onnx_file)
    stages = (
        export_pixel_stage(preprocessing, model_input, inputs, opset_of(model)),
        compose.add_prefix(model, MODEL),
        export_output_stage(
            find_shapes(model, value_names, lambda: run_once(onnx_file, preprocessing, inputs)),
            decoder,
            model_input,
            opset_of(model),
        ),
    )
    wrapped = merge_stages(stages, [model_input.name, *inputs], value_names)
    if preprocessing.fixed_hw is not None:
        height, width = preprocessing.fixed_hw
        shape = wrapped.graph.input[0].type.tensor_type.shape
        shape.dim[1].dim_value, shape.dim[2].dim_value = height, width
    if fixed_batch is not None:
        for value in (*wrapped.graph.input, *wrapped.graph.output):
            if value.type.tensor_type.shape.dim:
                value.type.tensor_type.shape.dim[0].dim_value = fixed_batch
    return wrapped


def find_values(model: onnx.ModelProto, decoder: OutputDecoder, path: Path) -> list[str]:
    """Return the names of the model's outputs that the decoder reads, as `OutputDecoder.pick_values` finds them."""
    shapes = {output.name: dims_of(output) for output in model.graph.output}
    if decoder.function is not None:
        return list(shapes)
    found = decoder.choose(list(shapes))
    decoder.check_shapes([shapes[name] for name in found], shapes, f"{path}:")
    return found


class PixelStage(nn.Module):
    """uint8 (N, H, W, 3) -> what the model takes: images in its layout and float type, and their size (N, 2) each time.

    sizes: which way round, and of what type.
    """

    def __init__(
        self,
        preprocessing: PreprocessingConfig,
        model_input: ModelInput,
        sizes: Sequence[tuple[SizeInput, torch.dtype]] = (),
    ) -> None:
        super().__init__()
        self.normalize = Normalize(preprocessing)
        self.model_input = model_input
        self.sizes = sizes
        self.size_hw = preprocessing.fixed_hw

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        takes_levels = self.model_input.dtype == torch.uint8
        images: Tensor = self.normalize.to_levels(pixels).round() if takes_levels else self.normalize(pixels)
        size_hw = self.size_hw or (images.shape[2], images.shape[3])
        sizes = [make_size(kind, images, size_hw, dtype) for kind, dtype in self.sizes]
        if self.model_input.channels_last:
            images = images.permute(0, 2, 3, 1)
        return images.to(self.model_input.dtype), *sizes


class OutputStage(nn.Module):
    """The model's images and values -> our named outputs, in fp32. names: of the values."""

    def __init__(self, decoder: OutputDecoder, channels_last: bool, names: Sequence[str]) -> None:
        super().__init__()
        self.decoder = decoder
        self.channels_last = channels_last
        self.names = names

    def forward(self, images: Tensor, *values: Tensor) -> tuple[Tensor, ...]:
        return tuple(self._decode(images, values).values())

    def names_of(self, images: Tensor, *values: Tensor) -> list[str]:
        """Return the names of the outputs, in order. Raises ConfigError when the decoder refuses the shapes."""
        return list(self._decode(images, values))

    def _decode(self, images: Tensor, values: tuple[Tensor, ...]) -> dict[str, Tensor]:
        if self.channels_last:
            images = images.permute(0, 3, 1, 2)
        floats = tuple(value.float() for value in values)
        if self.decoder.function is None:
            return self.decoder.decode(floats, images)
        outputs: dict[str, Tensor] = self.decoder(
            floats[0] if len(floats) == 1 else dict(zip(self.names, floats, strict=True)), images
        )
        return outputs


def export_pixel_stage(
    preprocessing: PreprocessingConfig, model_input: ModelInput, inputs: Mapping[str, SizeInput], opset: int
) -> onnx.ModelProto:
    """Export `pixels` -> `images`, `size_0`, `size_1`."""
    pixels = torch.zeros((2, EXAMPLE_SIZE, EXAMPLE_SIZE, 3), dtype=torch.uint8)
    dynamic = torch.export.Dim.DYNAMIC
    sizes = [(kind, model_input.size_dtypes[name]) for name, kind in inputs.items()]
    stage = PixelStage(preprocessing, model_input, sizes).eval()
    names = ["images", *(f"size_{index}" for index in range(len(sizes)))]
    exported = _export(stage, (pixels,), ({0: dynamic, 1: dynamic, 2: dynamic},), opset, ["pixels"], names)
    return compose.add_prefix(exported, PIXELS)


@dataclass(frozen=True)
class Value:
    """An output of the model: an example of it for two images, and which dimensions it leaves open."""

    name: str
    example: Tensor
    open_dims: tuple[int, ...]


def find_shapes(model: onnx.ModelProto, names: list[str], run: Callable[[], Mapping[str, Tensor]]) -> list[Value]:
    """Return outputs of the model. run: gives what it answers to two images, for sizes that it does not tell."""
    told = {output.name: output for output in model.graph.output}
    shapes = {name: dims_of(told[name]) for name in names}
    is_told = all(shape is not None and None not in shape[1:] for shape in shapes.values())
    answers: Mapping[str, Tensor] = {} if is_told else run()
    values = []
    for name, shape in shapes.items():
        dtype = TYPES.get(told[name].type.tensor_type.elem_type, torch.float32)
        sizes = answers[name].shape if shape is None or name in answers else [2, *shape[1:]]
        opened = tuple(axis for axis in range(len(sizes)) if axis and (shape is None or shape[axis] is None))
        values.append(Value(name, torch.zeros(tuple(sizes), dtype=dtype), opened))  # type: ignore[arg-type]
    return values


def run_once(onnx_file: Path, preprocessing: PreprocessingConfig, inputs: Mapping[str, SizeInput]) -> dict[str, Tensor]:
    """Return what the file answers to two photographs."""
    network = OnnxNetwork(onnx_file, inputs)
    images = Normalize(preprocessing)(example_pixels(preprocessing))
    size_hw = (images.shape[2], images.shape[3])
    outputs = network(images, *(make_size(kind, images, size_hw) for kind in inputs.values()))
    return outputs if isinstance(outputs, dict) else {network.output_names[0]: outputs}


def export_output_stage(
    values: list[Value], decoder: OutputDecoder, model_input: ModelInput, opset: int
) -> onnx.ModelProto:
    """Export `images` and `value_0`, `value_1` -> outputs; dimensions that the model leaves open stay open."""
    sides, channels = decoder.size_hw or (EXAMPLE_SIZE, EXAMPLE_SIZE), model_input.channels
    shape = (2, *sides, channels) if model_input.channels_last else (2, channels, *sides)
    examples = [torch.zeros(shape, dtype=model_input.dtype), *(value.example for value in values)]
    dynamic = torch.export.Dim.DYNAMIC
    channel_axis = 3 if model_input.channels_last else 1
    open_axes = [axis for axis in range(4) if axis == 0 or (decoder.size_hw is None and axis != channel_axis)]
    open_images = dict.fromkeys(open_axes, dynamic)
    # What a decoder fixes by its own sizes, as that of a grid is, may become fixed.
    open_values = tuple({0: dynamic, **dict.fromkeys(value.open_dims, torch.export.Dim.AUTO)} for value in values)
    stage = OutputStage(decoder, model_input.channels_last, [value.name for value in values]).eval()
    output_names = stage.names_of(*examples)
    input_names = ["images", *(f"value_{index}" for index in range(len(values)))]
    exported = _export(stage, tuple(examples), (open_images, open_values), opset, input_names, output_names)
    return compose.add_prefix(exported, OUTPUTS)


def _export(
    stage: nn.Module, examples: tuple[Tensor, ...], shapes: Any, opset: int, inputs: list[str], outputs: list[str]
) -> onnx.ModelProto:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter's own insides
        program = torch.onnx.export(
            stage,
            examples,
            input_names=inputs,
            output_names=outputs,
            dynamic_shapes=shapes,
            opset_version=min(opset, NEWEST_OPSET),
            verbose=False,
        )
    assert program is not None
    exported = program.model_proto
    return version_converter.convert_version(exported, opset) if opset > NEWEST_OPSET else exported


def merge_stages(
    stages: tuple[onnx.ModelProto, onnx.ModelProto, onnx.ModelProto], input_names: list[str], value_names: list[str]
) -> onnx.ModelProto:
    """Return three models as one; only the last one's outputs stay, under their own names."""
    for stage in stages:
        stage.ir_version = max(stage.ir_version for stage in stages)
        del stage.metadata_props[:]  # two stages may say different things under one key
    pixels, model, outputs = stages
    images = onnx.ValueInfoProto()
    images.CopyFrom(pixels.graph.output[0])
    inputs = [(made.name, MODEL + name) for made, name in zip(pixels.graph.output, input_names, strict=True)]
    merged = compose.merge_models(pixels, model, inputs)
    merged.graph.output.append(images)
    connections = [(MODEL + name, f"{OUTPUTS}value_{index}") for index, name in enumerate(value_names)]
    if any(value.name == OUTPUTS + "images" for value in outputs.graph.input):
        connections.append((images.name, OUTPUTS + "images"))
    merged = compose.merge_models(merged, outputs, connections)
    named = [output for output in merged.graph.output if output.name.startswith(OUTPUTS)]
    del merged.graph.output[:]
    merged.graph.output.extend(named)
    for value, prefix in ((merged.graph.input[0], PIXELS), *((output, OUTPUTS) for output in named)):
        rename_value(merged.graph, value.name, value.name.removeprefix(prefix))
    state_opsets_once(merged)
    onnx.checker.check_model(merged)
    return merged


def state_opsets_once(model: onnx.ModelProto) -> None:
    """Name each opset once: `merge_models` keeps those of all parts, which ONNX Runtime's quantization refuses."""
    opsets = {"" if own.domain == "ai.onnx" else own.domain: own.version for own in model.opset_import}
    del model.opset_import[:]
    model.opset_import.extend(onnx.helper.make_opsetid(domain, version) for domain, version in opsets.items())


def rename_value(graph: onnx.GraphProto, old: str, new: str) -> None:
    """Rename an input or output of the graph; our stages, which alone use these, have no subgraphs."""
    for value in (*graph.input, *graph.output):
        value.name = new if value.name == old else value.name
    for node in graph.node:
        for names in (node.input, node.output):
            for index, name in enumerate(names):
                if name == old:
                    names[index] = new
