"""The model by ExecuTorch: `pip install executorch`."""

from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from executorch.runtime import Runtime
from numpy.typing import NDArray

VERSION = f"executorch {version('executorch')}"


def load(artifact: Path, names: Sequence[str]) -> Callable[[NDArray[np.uint8]], dict[str, NDArray[Any]]]:
    """Return what turns pixels uint8 (1, H, W, 3) into the outputs of these names."""
    method = Runtime.get().load_program(artifact).load_method("forward")

    def run(pixels: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        values = method.execute([torch.from_numpy(pixels)])
        # The next call writes over what this one returned.
        return {name: value.numpy().copy() for name, value in zip(names, values)}

    return run
