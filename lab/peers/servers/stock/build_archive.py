"""Pack an eager export of a torchvision model for TorchServe's stock handlers, to compare with.

    python lab/peers/servers/stock/build_archive.py exports/resnet50/eager-fp32 model_store/resnet50_stock.mar

The same weights. A classifier is a TorchScript trace for `image_classifier`, which loads that without a file of ours,
resizes to 256 and crops to 224, whatever the model was trained with. A detector is a file and a state dict for
`object_detector`, which cannot take a TorchScript detector. The stock handlers import captum: pip install captum.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import orjson
import torch
from torch import nn

from vision_serving.backends.eager import EagerSource, read_artifact

DETECTOR_FILE = """from torch import nn
from torchvision.models import get_model


class Detector(nn.Module):
    def __init__(self):
        super().__init__()
        self.network = get_model({name!r}, weights=None, weights_backbone=None, num_classes={classes}, **{arguments!r})

    def forward(self, images):
        return self.network(list(images))
"""


def main() -> None:
    build_archive(Path(sys.argv[1]), Path(sys.argv[2]))


def build_archive(export: Path, target: Path) -> None:
    """Build from an export of eager fp32. Raises CalledProcessError, ConfigError, BackendError or OSError."""
    source, network = read_artifact(export / "model")
    labels = orjson.loads((export / "labels.json").read_bytes())
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        index = {str(class_id): label for class_id, label in enumerate(labels)}
        (folder / "index_to_name.json").write_bytes(orjson.dumps(index))
        if source.task == "classification":
            files = write_classifier(network, folder)
        else:
            files = write_detector(source, network, len(labels), folder)
        command = [sys.executable, "-m", "model_archiver.model_packaging", "--model-name", target.stem]
        command += ["--version", "1.0", *files, "--extra-files", str(folder / "index_to_name.json")]
        subprocess.run([*command, "--export-path", str(target.parent), "--force"], check=True)


def write_classifier(network: nn.Module, folder: Path) -> list[str]:
    """Return what the archiver is told."""
    with torch.inference_mode():
        trace = torch.jit.trace(network, torch.zeros(1, 3, 224, 224))  # type: ignore[no-untyped-call]
    trace.save(str(folder / "model.pt"))
    return ["--handler", "image_classifier", "--serialized-file", str(folder / "model.pt")]


def write_detector(source: EagerSource, network: nn.Module, classes: int, folder: Path) -> list[str]:
    """Return what the archiver is told."""
    built = source.network
    text = DETECTOR_FILE.format(name=built.name, classes=classes, arguments=dict(built.arguments))
    (folder / "model.py").write_text(text, encoding="utf-8")
    state = {f"network.{name}": values for name, values in network.state_dict().items()}
    torch.save(state, folder / "model.pth")
    files = ["--model-file", str(folder / "model.py"), "--serialized-file", str(folder / "model.pth")]
    return ["--handler", "object_detector", *files]


if __name__ == "__main__":
    main()
