"""A user's ONNX file in the place of a network: the file as it is, run by ONNX Runtime without optimisation.

It is the reference for what the other backends make of the file. It cannot be traced or exported: PyTorch sees no
operation of it.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn

from vision_serving.errors import ConfigError, first_line, foreign_code
from vision_serving.graphs.fixed_batches import run_in_parts
from vision_serving.graphs.inputs import NO_INPUTS, SizeInput, name_size_inputs

FLOAT_DTYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
DTYPES = {**FLOAT_DTYPES, "tensor(uint8)": np.uint8}
SIZE_DTYPES = {"tensor(int64)": np.int64, "tensor(int32)": np.int32, **FLOAT_DTYPES}
CHANNELS = (1, 3)
UNIT = 255  # of a level of uint8 in images of [0, 1]


class OnnxNetwork(nn.Module):
    """Normalised images (N, C, H, W) -> the model's outputs: a tensor, or several by name. It computes on the CPU.

    A file of uint8 is given the levels of images in [0, 1].

    size_inputs: what else it takes, by name, and in that order: a size (N, 2) each.
    """

    def __init__(self, path: Path, inputs: Mapping[str, SizeInput] = NO_INPUTS) -> None:
        super().__init__()
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3
        with foreign_code(lambda error: ConfigError(f"{path}: ONNX Runtime cannot load it: {first_line(error)[:200]}")):
            self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        found = self._session.get_inputs()
        self._input = next((each for each in found if len(each.shape) == 4), found[0])
        self._sizes = [each for each in found if each is not self._input]
        self.size_inputs = name_size_inputs({each.name: each.shape for each in self._sizes}, inputs, str(path))
        if self._input.type not in DTYPES:
            raise ConfigError(f"{path}: its input is {self._input.type}; expected one of {sorted(DTYPES)}")
        self.output_names = [output.name for output in self._session.get_outputs()]

    @property
    def takes_levels(self) -> bool:
        """Return whether it takes pixels as they are, and normalises them itself."""
        return bool(self._input.type == "tensor(uint8)")

    @property
    def batch(self) -> int | None:
        """Return how many images it takes at a time, None where that is open."""
        size = self._input.shape[0] if self._input.shape else None
        return size if isinstance(size, int) else None

    @property
    def input_chw(self) -> tuple[int | None, int | None, int | None]:
        """Return channels, height and width that the file states, None where one is open or nothing is stated."""
        sizes = [size if isinstance(size, int) else None for size in self._input.shape]
        if len(sizes) != 4:
            return None, None, None
        channels, height, width = (sizes[3], sizes[1], sizes[2]) if self._is_channels_last else sizes[1:]
        return channels, height, width

    @property
    def _is_channels_last(self) -> bool:
        shape = self._input.shape
        return len(shape) == 4 and shape[1] not in CHANNELS and shape[3] in CHANNELS

    def forward(self, images: Tensor, *sizes: Tensor) -> Tensor | dict[str, Tensor]:
        if self.takes_levels:
            images = (images * UNIT).round()
        if self._is_channels_last:
            images = images.permute(0, 2, 3, 1)
        if self.batch is not None:
            answers: dict[str, Tensor] = run_in_parts(self._run, self.batch, images, *sizes)
        else:
            answers = self._run(images, *sizes)
        return next(iter(answers.values())) if len(answers) == 1 else answers

    def _run(self, images: Tensor, *sizes: Tensor) -> dict[str, Tensor]:
        batch = np.ascontiguousarray(images.detach().cpu().numpy(), dtype=DTYPES[self._input.type])
        feeds = {self._input.name: batch}
        for each, size in zip(self._sizes, sizes, strict=True):
            feeds[each.name] = size.cpu().numpy().astype(SIZE_DTYPES[each.type])
        found = self._session.run(self.output_names, feeds)
        answers = (torch.from_numpy(values).float().to(images.device) for values in found)
        return dict(zip(self.output_names, answers, strict=True))
