"""The model by ONNX Runtime: `pip install onnxruntime`."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

VERSION = f"onnxruntime {onnxruntime.__version__}"


def load(artifact: Path, names: Sequence[str]) -> Callable[[NDArray[np.uint8]], dict[str, NDArray[Any]]]:
    """Return what turns pixels uint8 (N, H, W, 3) into the outputs of these names."""
    session = onnxruntime.InferenceSession(str(artifact), providers=["CPUExecutionProvider"])
    return lambda pixels: dict(zip(names, session.run(list(names), {"pixels": pixels})))
