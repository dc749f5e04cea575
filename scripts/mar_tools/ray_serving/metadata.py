"""What V2 says of a model's tensors: as the front's table has it (deploy/nginx/front.js)."""

from typing import Any

SERVER = {"name": "ray_serve", "extensions": ["binary_tensor_data"]}
INPUTS = [{"name": "image", "datatype": "BYTES", "shape": [-1]}]

CLASSES = [
    {"name": "predictions", "datatype": "BYTES", "shape": [-1]},
    {"name": "class_ids", "datatype": "INT64", "shape": [-1, -1]},
    {"name": "scores", "datatype": "FP32", "shape": [-1, -1]},
    {"name": "labels", "datatype": "BYTES", "shape": [-1, -1]},
]
BOXES = [
    {"name": "num_detections", "datatype": "INT64", "shape": [-1]},
    {"name": "boxes", "datatype": "FP32", "shape": [-1, -1, 4]},
]
OUTPUTS: dict[str, list[dict[str, Any]]] = {
    "classification": CLASSES,
    "detection": [*CLASSES, *BOXES],
    "embedding": [{"name": "embedding", "datatype": "FP32", "shape": [-1, -1]}],
}


def describe_tensors(model: str, versions: list[str], card: dict[str, Any]) -> dict[str, Any]:
    """Return the metadata of a model. card: its model card."""
    return {
        "name": model,
        "versions": versions,
        "platform": f"ray_serve_{card.get('backend', 'unknown')}",
        "inputs": INPUTS,
        "outputs": OUTPUTS.get(str(card.get("task")), []),
    }
