"""A user's ONNX file in the place of a network: the file as it is, run by ONNX Runtime without optimisation.

It is the reference for what the other backends make of the file. It cannot be traced or exported: PyTorch sees no
operation of it.
"""

from pathlib import Path

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn

from vision_serving.errors import ConfigError, first_line, foreign_code

DTYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}


class OnnxNetwork(nn.Module):
    """Normalised images (N, 3, H, W) -> the model's outputs: a tensor, or several by name. It computes on the CPU."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3
        with foreign_code(lambda error: ConfigError(f"{path}: ONNX Runtime cannot load it: {first_line(error)[:200]}")):
            self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0]
        if self._input.type not in DTYPES:
            raise ConfigError(f"{path}: its input is {self._input.type}; expected one of {sorted(DTYPES)}")
        self._output_names = [output.name for output in self._session.get_outputs()]

    def forward(self, images: Tensor) -> Tensor | dict[str, Tensor]:
        shape = self._input.shape
        if len(shape) == 4 and shape[1] != 3 and shape[3] == 3:
            images = images.permute(0, 2, 3, 1)
        batch = np.ascontiguousarray(images.detach().cpu().numpy(), dtype=DTYPES[self._input.type])
        parts = np.split(batch, len(batch)) if shape[0] == 1 else [batch]
        found = [self._session.run(self._output_names, {self._input.name: part}) for part in parts]
        answers = (torch.from_numpy(np.concatenate(values)) for values in zip(*found, strict=True))
        outputs = [answer.float().to(images.device) for answer in answers]
        return outputs[0] if len(outputs) == 1 else dict(zip(self._output_names, outputs, strict=True))
