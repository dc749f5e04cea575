"""README.md of a folder: one screen, with the lines for each platform. Its templates are in `carried/readme/`."""

import string
from pathlib import Path
from typing import Any

TEMPLATES = Path(__file__).parent / "carried" / "readme"
DETECTIONS = (
    "- `detections.kt`, `.swift`, `.hpp`: thresholds and NMS, no `class_filter`. For `nms: none`, give IoU 1.\n"
)
OPTIONS = {
    "classification": ", and of how many classes",
    "detection": ", with thresholds for each class and NMS",
    "embedding": "",
}
RESULTS = {
    "classification": "`logits` (1, C): scores are their softmax",
    "detection": "`boxes` (1, Q, 4) xyxy in the model's pixels and scores: thresholds and NMS are yours",
    "embedding": "`embedding` (1, D): divide it by its length",
}


def write_readme(folder: Path, model: dict[str, Any], report: dict[str, Any]) -> None:
    """Write README.md. model: model.json. report: verification.json."""
    height, width = (side or "H" for side in model["input"]["shape"][1:3])
    measured = report["measured"]
    figures = [
        f"{report['artifact_mb']:g} MB",
        f"{measured['overall_snr_db']:.1f} dB, {measured['snr_db']:.1f} dB in the worst picture",
    ]
    if "iou" in measured:
        figures.append(f"least IoU {measured.get('answered_iou', measured['iou']):.4f} of a box with its own")
    if "top1_agreement" in measured:
        figures.append(f"{measured['top1_agreement']:.0%} of best classes alike")
    values = {
        "name": model["name"],
        "precision": model["precision"],
        "artifact": model["artifact"],
        "programs": "`vision.mjs`" if model["format"] == "onnx-web" else "`preprocess.py`",
        "detections": DETECTIONS if model["task"] == "detection" and model["format"] != "onnx-web" else "",
        "web_version": str(model.get("runtime", "")).rpartition(" ")[2],
        "height": height,
        "width": width,
        "outputs": ", ".join(f'"{name}"' for name in model["outputs"]),
        "first_output": model["outputs"][0],
        "result": RESULTS[model["task"]],
        "options": OPTIONS[model["task"]],
        "figures": ", ".join(figures),
        "runtime": report["runtime"],
        "images": report["images"],
    }
    text = (TEMPLATES / "parts.md").read_text("utf-8") + (TEMPLATES / f"{model['format']}.md").read_text("utf-8")
    (folder / "README.md").write_text(string.Template(text).substitute(values), "utf-8")
