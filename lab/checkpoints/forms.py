"""The forms: each writes a file of weights of one network, with the library that people write it with."""

import argparse
import pickle
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import timm
import torch
import torchvision
import transformers
from safetensors.torch import save_file
from timm.utils import CheckpointSaver, ModelEmaV3
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

from lab.checkpoints.pruning import narrow_blocks

CLASSES = 5
CUT_BYTES = 10_000
TORCHVISION = {"source": "torchvision", "name": "resnet18", "arguments": {"num_classes": CLASSES}}
TIMM = {**TORCHVISION, "source": "timm"}

State = Mapping[str, Tensor]
Write = Callable[[nn.Module, Path], nn.Module | None]


@dataclass(frozen=True)
class Form:
    """write: saves a network's weights and returns the one that was saved, None where that is no network's.

    then: keys that are added to the recipe's `model`, as the first refusal says.
    """

    name: str
    file: str
    write: Write
    model: Mapping[str, Any] = field(default_factory=lambda: TORCHVISION)
    then: Mapping[str, Any] = field(default_factory=dict)
    build: Callable[[], nn.Module] = lambda: torchvision.models.resnet18(num_classes=CLASSES)


def saved(content: Callable[[nn.Module], Any], **options: Any) -> Write:
    """Return what saves what `content` makes of a network, by torch.save."""

    def write(network: nn.Module, path: Path) -> nn.Module:
        torch.save(content(network), path, **options)
        return network

    return write


def under(prefix: str, state: State) -> dict[str, Tensor]:
    return {prefix + name: values for name, values in state.items()}


def another(network: nn.Module) -> dict[str, Tensor]:
    """Return the state dict of an average that differs from the network."""
    return {
        name: values * 1.01 if values.is_floating_point() else values for name, values in network.state_dict().items()
    }


def averaged(network: nn.Module) -> State:
    average = torch.optim.swa_utils.AveragedModel(network)
    average.module.load_state_dict(another(network))
    return average.state_dict()


def reference_script(network: nn.Module) -> dict[str, Any]:
    """Return what references/classification/train.py of torchvision saves."""
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    return {
        "model": network.state_dict(),
        "optimizer": optimizer.state_dict(),
        "lr_scheduler": torch.optim.lr_scheduler.StepLR(optimizer, 30).state_dict(),
        "epoch": 89,
        "args": argparse.Namespace(model="resnet18", output_dir=Path("runs"), lr=0.1),
    }


def lightning(network: nn.Module) -> dict[str, Any]:
    """Return what a LightningModule with `self.model` and a weighted loss saves."""
    return {
        "epoch": 4,
        "global_step": 500,
        "pytorch-lightning_version": "2.5.0",
        "state_dict": {**under("model.", network.state_dict()), "criterion.weight": torch.ones(CLASSES)},
        "callbacks": {"ModelCheckpoint": {"best_model_score": torch.tensor(0.9), "dirpath": "runs"}},
        "hyper_parameters": {"lr": 0.1, "optimizer": torch.optim.AdamW},
    }


def write_timm(network: nn.Module, path: Path, ema: bool = False) -> nn.Module:
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    average = ModelEmaV3(network) if ema else None
    if average is not None:
        average.module.load_state_dict(another(network))
    args = argparse.Namespace(model="resnet18", num_classes=CLASSES)
    saver = CheckpointSaver(
        network, optimizer, args=args, model_ema=average, checkpoint_dir=str(path.parent), recovery_dir=str(path.parent)
    )
    saver.save_checkpoint(epoch=3, metric=np.float64(0.9))
    (path.parent / "last.pth.tar").replace(path)
    return network


def write_masked(network: nn.Module, path: Path) -> nn.Module:
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            prune.l1_unstructured(layer, "weight", 0.5)  # type: ignore[no-untyped-call]
    torch.save(network.state_dict(), path)
    return network


def write_narrowed(network: nn.Module, path: Path) -> nn.Module:
    narrow_blocks(network)
    torch.save(network.state_dict(), path)
    return network


def write_head(*layers: nn.Module) -> Write:
    def write(network: nn.Module, path: Path) -> nn.Module:
        network.fc = layers[0] if len(layers) == 1 else nn.Sequential(*layers)
        torch.save(network.state_dict(), path)
        return network

    return write


class OwnHead(nn.Module):
    """A head with a class of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.classify = nn.Linear(512, CLASSES)

    def forward(self, features: Tensor) -> Tensor:
        logits: Tensor = self.classify(features)
        return logits


def write_quantised(network: nn.Module, path: Path) -> None:
    quantised = torch.ao.quantization.quantize_dynamic(network, {nn.Linear})  # type: ignore[no-untyped-call]
    torch.save(quantised.state_dict(), path)


def write_prepared(network: nn.Module, path: Path) -> None:
    network.train().qconfig = torch.ao.quantization.get_default_qat_qconfig("x86")  # type: ignore[no-untyped-call]
    prepared = torch.ao.quantization.prepare_qat(network)  # type: ignore[no-untyped-call]
    torch.save(prepared.state_dict(), path)


def write_weight_norm(network: nn.Module, path: Path) -> nn.Module:
    parametrizations.weight_norm(network.get_submodule("fc"))
    torch.save(network.state_dict(), path)
    return network


def write_script(network: nn.Module, path: Path) -> nn.Module:
    torch.jit.script(network).save(path)  # type: ignore[no-untyped-call]
    return network


def write_program(network: nn.Module, path: Path) -> nn.Module:
    torch.export.save(torch.export.export(network, (torch.rand(1, 3, 64, 64),)), path)
    return network


def write_safetensors(network: nn.Module, path: Path) -> nn.Module:
    save_file(network.state_dict(), path)
    return network


def write_pickle(network: nn.Module, path: Path) -> nn.Module:
    path.write_bytes(pickle.dumps({name: values.numpy() for name, values in network.state_dict().items()}))
    return network


def write_cut(network: nn.Module, path: Path) -> nn.Module:
    torch.save(network.state_dict(), path)
    path.write_bytes(path.read_bytes()[:CUT_BYTES])
    return network


def write_half(network: nn.Module, path: Path) -> nn.Module:
    torch.save(network.half().state_dict(), path)
    return network.float()


def write_broken(network: nn.Module, path: Path) -> nn.Module:
    nn.init.constant_(network.fc.bias, float("nan"))  # type: ignore[arg-type, union-attr]
    torch.save(network.state_dict(), path)
    return network


def write_huggingface(network: nn.Module, path: Path) -> nn.Module:
    network.config.save_pretrained(path.parent / "hf")  # type: ignore[operator, union-attr]
    torch.save(network.state_dict(), path)
    return network


def new_timm() -> nn.Module:
    network: nn.Module = timm.create_model("resnet18", num_classes=CLASSES)
    return network


def new_vit() -> nn.Module:
    config = transformers.ViTConfig(
        hidden_size=48, num_hidden_layers=2, num_attention_heads=3, intermediate_size=96, patch_size=32,
        id2label={index: f"class {index}" for index in range(CLASSES)},
    )  # fmt: skip
    network: nn.Module = transformers.ViTForImageClassification(config)
    return network


def compiled(network: nn.Module) -> nn.Module:
    return cast(nn.Module, torch.compile(network))


class Trap:
    """What a file of an attacker holds."""

    def __reduce__(self) -> tuple[Any, ...]:
        import os

        return os.system, ("true",)


EXTRAS = {"best": np.float64(0.9), "log": defaultdict(list, loss=[0.5]), "out": Path("runs")}
FORMS = (
    Form("`model.state_dict()`", "w.pth", saved(lambda n: n.state_dict())),
    Form("PyTorch before 1.6", "w.pt", saved(lambda n: n.state_dict(), _use_new_zipfile_serialization=False)),
    Form("safetensors", "w.safetensors", write_safetensors),
    Form("half precision", "w.pth", write_half),
    Form("torchvision's reference scripts, with a Namespace", "model_89.pth", saved(reference_script)),
    Form(
        "the same with `--model-ema`", "model_89.pth",
        saved(lambda n: {**reference_script(n), "model_ema": averaged(n)}), then={"weights_key": "model"},
    ),
    Form("timm's CheckpointSaver", "last.pth.tar", write_timm, TIMM, build=new_timm),
    Form(
        "the same with an EMA", "last.pth.tar", lambda n, path: write_timm(n, path, ema=True), TIMM,
        {"weights_key": "state_dict"}, new_timm,
    ),
    Form("Lightning, with a weighted loss", "epoch=4.ckpt", saved(lightning)),
    Form(
        "Lightning with an EMA in the same module", "last.ckpt",
        saved(lambda n: {"state_dict": {**under("model.", n.state_dict()), **under("ema_model.", another(n))}}),
        then={"weights_key": "state_dict.model"},
    ),
    Form(
        "Lightning with a head beside the network", "last.ckpt",
        saved(lambda n: {"state_dict": {**under("backbone.", n.state_dict()), "head.weight": torch.ones(3, CLASSES)}}),
    ),
    Form("nn.DataParallel", "w.pth", saved(lambda n: nn.DataParallel(n).state_dict())),
    Form("torch.compile", "w.pth", saved(lambda n: compiled(n).state_dict())),
    Form("torch.compile in DataParallel", "w.pth", saved(lambda n: nn.DataParallel(compiled(n)).state_dict())),
    Form("AveragedModel (SWA, EMA)", "swa.pth", saved(lambda n: torch.optim.swa_utils.AveragedModel(n).state_dict())),
    Form('`{"net": ..., "acc": ...}`', "ckpt.t7", saved(lambda n: {"net": n.state_dict(), "acc": 93.1, "epoch": 7})),
    Form("numbers of NumPy, paths, defaultdicts beside", "best", saved(lambda n: {"w": n.state_dict(), **EXTRAS})),
    Form("a whole pickled model", "model.pth", saved(lambda n: n)),
    Form("a whole model in a dict", "best.pt", saved(lambda n: {"epoch": 3, "model": n, "optimizer": None})),
    Form("`pytorch_model.bin` of transformers", "pytorch_model.bin", write_huggingface,
         {"source": "huggingface", "name": "hf"}, build=new_vit),
    Form("masks of torch.nn.utils.prune", "pruned.pth", write_masked),
    Form("channels pruned away", "pruned.pth", write_narrowed, then={"shapes": "weights"}),
    Form("`fc = Sequential(Dropout, Linear)`", "w.pth", write_head(nn.Dropout(), nn.Linear(512, CLASSES)),
         then={"head": {"fc": ["Dropout", "Linear"]}}),
    Form("`fc` of two layers", "w.pth", write_head(nn.Linear(512, 64), nn.ReLU(), nn.Dropout(), nn.Linear(64, CLASSES)),
         then={"head": {"fc": ["Linear", "ReLU", "Dropout", "Linear"]}}),
    Form("`fc` of a class of their own", "w.pth", write_head(OwnHead())),
    Form("another number of classes", "w.pth", write_head(nn.Linear(512, 7)), then={"arguments": {"num_classes": 7}}),
    Form("weights of another network", "w.pth", saved(lambda _: torchvision.models.resnet34().state_dict())),
    Form("quantised by torch.ao", "int8.pth", write_quantised),
    Form("prepared for quantisation-aware training", "qat.pth", write_prepared),
    Form("weight norm", "w.pth", write_weight_norm),
    Form("TorchScript under .pth", "model.pth", write_script),
    Form("a program of torch.export", "model.pt", write_program),
    Form("pickle.dump", "w.pth", write_pickle),
    Form("another pickle protocol", "w.pth", saved(lambda n: n.state_dict(), pickle_protocol=4)),
    Form("a training that broke (NaN)", "w.pth", write_broken),
    Form("a download that was cut short", "w.pth", write_cut),
    Form("a file that runs a command", "w.pth", saved(lambda n: {"model": n.state_dict(), "trap": Trap()})),
)  # fmt: skip
