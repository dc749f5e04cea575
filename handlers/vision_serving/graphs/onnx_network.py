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
from vision_serving.graphs.inputs import NO_INPUTS, SizeInput, name_size_inputs

DTYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
SIZE_DTYPES = {"tensor(int64)": np.int64, "tensor(int32)": np.int32, **DTYPES}


class OnnxNetwork(nn.Module):
    """Normalised images (N, 3, H, W) -> the model's outputs: a tensor, or several by name. It computes on the CPU.

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
        self._output_names = [output.name for output in self._session.get_outputs()]

    def forward(self, images: Tensor, *sizes: Tensor) -> Tensor | dict[str, Tensor]:
        shape = self._input.shape
        if len(shape) == 4 and shape[1] != 3 and shape[3] == 3:
            images = images.permute(0, 2, 3, 1)
        batch = np.ascontiguousarray(images.detach().cpu().numpy(), dtype=DTYPES[self._input.type])
        feeds = {self._input.name: batch}
        for each, size in zip(self._sizes, sizes, strict=True):
            feeds[each.name] = size.cpu().numpy().astype(SIZE_DTYPES[each.type])
        steps = [slice(place, place + 1) for place in range(len(batch))] if shape[0] == 1 else [slice(None)]
        found = [
            self._session.run(self._output_names, {name: values[step] for name, values in feeds.items()})
            for step in steps
        ]
        answers = (torch.from_numpy(np.concatenate(values)) for values in zip(*found, strict=True))
        outputs = [answer.float().to(images.device) for answer in answers]
        return outputs[0] if len(outputs) == 1 else dict(zip(self._output_names, outputs, strict=True))
