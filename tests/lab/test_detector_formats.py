"""Every form of a detector's answer, from recipe to what each engine computes: the same as PyTorch, for any batch."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from mar_tools.exporting.export import export_model
from mar_tools.models.checkpoints import load_checkpoint
from mar_tools.models.example_pixels import load_pixels
from mar_tools.models.recipes import Recipe, read_recipe
from mar_tools.verification.observations import load_handler
from vision_serving.graphs.construction import build_graph

HEIGHT, WIDTH = 32, 64
NETWORK = '''
import torch
from torch import nn


class Net(nn.Module):
    """Rows (N, 32, width) of values in 0..1, in a form."""

    def __init__(self, width, form):
        super().__init__()
        self.head = nn.Conv2d(3, width, 8, 8)
        self.prototypes = nn.Conv2d(3, 2, 4, 4)
        self.form = form

    def forward(self, images, size=None):
        rows = self.head(images).sigmoid().flatten(2).transpose(1, 2)
        if self.form == "pair":
            return {"scores": rows[..., -4:], "boxes": rows[..., :-4] * 20}
        if self.form == "sized":
            scores, labels = rows[..., 4:].max(dim=2)
            return labels, rows[..., :4] * size.repeat(1, 2).unsqueeze(1), scores
        if self.form == "ranked":
            label = (rows[..., 5:6] * 2.99).floor()
            rows = torch.cat((rows[..., :4] * 20, rows[..., 4:5], label, rows[..., 6:]), dim=2)
        return (rows, self.prototypes(images)) if self.form == "masks" else rows
'''
HOOK = """
def decode(outputs, size_hw):
    class_ids = (outputs[..., 5] * 2).round()
    return {"boxes": outputs[..., :4] * size_hw[0], "scores": outputs[..., 4], "class_ids": class_ids}
"""
YOLO = {"format": "yolo", "layout": "rows", "objectness": False}
CASES: dict[str, tuple[int, str, dict[str, Any]]] = {
    "parts of the image, background": (
        8, "pair", {"box_format": "cxcywh", "normalized": True, "activation": "softmax", "background": "last"}
    ),
    "corner and size": (8, "pair", {"box_format": "xywh", "background": "first"}),
    "turned boxes": (9, "pair", {"box_format": "xywhr"}),
    "corners": (12, "pair", {"box_format": "corners"}),
    "labels and the size": (7, "sized", {"format": "boxes_scores_labels"}),
    "end to end": (6, "ranked", {"format": "end_to_end"}),
    "end to end, turned": (7, "ranked", {"format": "end_to_end", "box_format": "xywhr"}),
    "grids": (8, "rows", {**YOLO, "objectness": True, "strides": [8]}),
    "masks": (9, "masks", {**YOLO, "masks": True}),
    "hook": (6, "rows", {"decode": "decode.py"}),
}  # fmt: skip


def write(folder: Path, width: int, form: str, output: dict[str, Any], source: str) -> Recipe:
    (folder / "net.py").write_text(NETWORK)
    (folder / "decode.py").write_text(HOOK)
    labels = ["a", "b", "c", *(["d"] if form == "pair" and "background" not in output else [])]
    (folder / "labels.json").write_text(json.dumps(labels))
    model: dict[str, Any] = {"source": "python", "file": "net.py", "class": "Net", "weights": "random"}
    model |= {"arguments": {"width": width, "form": form}, "output": output}
    if form == "sized":
        model["inputs"] = {"size": "width_height"}
    document: dict[str, Any] = {"name": "m", "task": "detection", "model": model, "labels": "labels.json"}
    document["preprocessing"] = {"resize": {"mode": "exact", "size": [HEIGHT, WIDTH]}}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(document))
    recipe = read_recipe(folder / "recipe.yaml")
    if source == "python":
        return recipe
    network = load_checkpoint(recipe).network
    examples = (torch.rand(2, 3, HEIGHT, WIDTH), *([torch.tensor([[WIDTH, HEIGHT]] * 2)] if form == "sized" else []))
    shapes = ({0: torch.export.Dim.DYNAMIC},) * len(examples)
    names = {"sized": ["labels", "boxes", "scores"], "pair": ["scores", "boxes"], "masks": ["a", "b"]}.get(form, ["a"])
    torch.onnx.export(
        network, examples, folder / "m.onnx", dynamic_shapes=shapes, input_names=["image", "size"][: len(examples)],
        output_names=names, verbose=False, external_data=False,
    )  # fmt: skip
    document["model"] = {"source": "onnx", "file": "m.onnx", "output": output, "inputs": model.get("inputs", {})}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(document))
    return read_recipe(folder / "recipe.yaml")


@pytest.mark.parametrize("source", ["python", "onnx"])
@pytest.mark.parametrize("case", CASES)
def test_engines_compute_what_pytorch_computes(tmp_path: Path, case: str, source: str) -> None:
    recipe = write(tmp_path, *CASES[case], source)
    checkpoint = load_checkpoint(recipe)
    told = checkpoint.source
    graph = build_graph(checkpoint.network, "detection", checkpoint.preprocessing, told.output, told.inputs)
    pixels = load_pixels(3, checkpoint.preprocessing)
    with torch.inference_mode():
        expected = graph(pixels)
    assert expected["boxes"].std() > 0.1
    for backend in ("eager", "openvino", "onnxruntime", *(["torchscript"] if source == "python" else [])):
        folder = export_model(recipe, checkpoint, backend, "fp32", tmp_path / "exports")
        found = load_handler(folder).backend.infer(pixels)
        assert found.keys() == expected.keys()
        for name, values in expected.items():
            torch.testing.assert_close(
                found[name].to(values.dtype), values, atol=2e-3, rtol=1e-3, msg=f"{backend} {name}"
            )
