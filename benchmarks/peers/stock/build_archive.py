"""Pack an eager export of a torchvision classifier for TorchServe's stock `image_classifier` handler, to compare with.

    python benchmarks/peers/stock/build_archive.py exports/resnet50/eager-fp32 model_store/resnet50_stock.mar

The same weights, as a TorchScript trace: the stock handler loads that without a model file of ours. The stock handler
imports captum: pip install captum. It resizes to 256 and crops to 224, whatever the model was trained with.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import orjson
import torch
from safetensors.torch import load_file

from vision_serving.backends.eager import EagerSource
from vision_serving.config import parse_config
from vision_serving.graphs.sources import build_network


def main() -> None:
    build_archive(Path(sys.argv[1]), Path(sys.argv[2]))


def build_archive(export: Path, target: Path) -> None:
    """export: of eager fp32. Raises CalledProcessError, ConfigError or OSError."""
    source = parse_config(EagerSource, orjson.loads((export / "model" / "source.json").read_bytes()), "source.json")
    network = build_network(source.network, export / "model")
    network.load_state_dict(load_file(export / "model" / "model.safetensors"))
    labels = orjson.loads((export / "labels.json").read_bytes())
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        torch.jit.trace(network, torch.zeros(1, 3, 224, 224)).save(f"{folder}/model.pt")  # type: ignore[no-untyped-call]
        index = {str(class_id): label for class_id, label in enumerate(labels)}
        Path(folder, "index_to_name.json").write_bytes(orjson.dumps(index))
        command = [sys.executable, "-m", "model_archiver.model_packaging", "--model-name", target.stem]
        command += ["--version", "1.0", "--handler", "image_classifier", "--serialized-file", f"{folder}/model.pt"]
        command += ["--extra-files", f"{folder}/index_to_name.json", "--export-path", str(target.parent), "--force"]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
