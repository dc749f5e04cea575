"""The model by LiteRT: `pip install ai-edge-litert`."""

from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray

VERSION = f"ai-edge-litert {version('ai-edge-litert')}"


def load(artifact: Path, names: Sequence[str]) -> Callable[[NDArray[np.uint8]], dict[str, NDArray[Any]]]:
    """Return what turns pixels uint8 (1, H, W, 3) into the outputs of these names."""
    runner = Interpreter(model_path=str(artifact)).get_signature_runner()
    (given,) = runner.get_input_details()
    places = sorted(runner.get_output_details())  # output_0, output_1, ...

    def run(pixels: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        values = runner(**{given: pixels})
        return {name: values[place] for name, place in zip(names, places, strict=True)}

    return run
