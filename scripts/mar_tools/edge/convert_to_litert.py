"""A process in LiteRT's environment: `convert_to_litert.py PROGRAM.pt2 MODEL.tflite fp32|int8`.

It imports nothing of this project, whose packages that environment does not all have.
"""

import sys
from pathlib import Path


def main() -> None:
    program, target, precision = sys.argv[1:]
    import litert_torch
    import torch

    loaded = torch.export.load(program)
    (pixels,) = loaded.example_inputs[0]
    litert_torch.convert(loaded.module(), (pixels,)).export(target)
    if precision == "int8":
        quantize(Path(target))


def quantize(model: Path) -> None:
    """Write 8-bit weights into a model; its activations become 8 bits as they come."""
    from ai_edge_quantizer import quantizer, recipe

    job = quantizer.Quantizer(str(model), recipe.dynamic_wi8_afp32())
    job.quantize().export_model(str(model), overwrite=True)


if __name__ == "__main__":
    main()
