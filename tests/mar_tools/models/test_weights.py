"""State dicts into networks: which fits, which is asked for, and why one does not fit."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
import torch
from conftest import MakeRecipe
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune
from torchvision.models import mobilenetv3, resnet18

from mar_tools.models.checkpoints import check_files, load_checkpoint
from mar_tools.models.misfits import guess_layers
from mar_tools.models.recipes import read_recipe
from mar_tools.models.weight_files import look_into
from mar_tools.models.weights import load_weights
from vision_serving.backends.eager import EagerBackend
from vision_serving.errors import ConfigError, tell
from vision_serving.graphs.heads import replace_heads
from vision_serving.graphs.shapes import take_shapes

State = dict[str, Tensor]


class Tiny(nn.Module):
    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.fc: nn.Module = nn.Linear(4, classes)
        self.register_buffer("grid", torch.arange(4.0), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.norm(self.conv(images)).relu().mean((2, 3)))
        return logits


def trained(seed: int = 1, **arguments: Any) -> State:
    torch.manual_seed(seed)
    return Tiny(**arguments).state_dict()


def under(prefix: str, state: State) -> State:
    return {prefix + name: values for name, values in state.items()}


def load(content: object, path: Path, network: nn.Module | None = None, **options: Any) -> State:
    torch.save(content, path / "w.pth")
    network = network or Tiny()
    load_weights(network, look_into(path / "w.pth"), **options)
    return network.state_dict()


RAW, EMA = trained(1), trained(2)
LIGHTNING = {**under("model.", RAW), "criterion.weight": torch.ones(3)}
FORMS: dict[str, object] = {
    "DataParallel": under("module.", RAW),
    "torch.compile within DataParallel": under("module._orig_mod.", RAW),
    "several wrappers": {"state_dict": under("model.net._orig_mod.module.", RAW)},
    "a compiled part": {(name if "fc" in name else name.replace(".", "._orig_mod.")): RAW[name] for name in RAW},
    "an average": {**under("module.", RAW), "n_averaged": torch.tensor(3)},
    "a key of their own": {"weights": RAW, "acc": torch.tensor(0.9)},
    "two levels": {"state": {"network": RAW}, "epoch": 3},
    "a weighted loss beside": {"state_dict": LIGHTNING},
    "twice the same": {"model": RAW, "ema": RAW},
    "without counters": {name: values for name, values in RAW.items() if "num_batches" not in name},
    "a list": [RAW, {"state": {0: {"step": torch.tensor(1.0)}}}],
    "the name of the network beside": {"model": "tiny", "state_dict": RAW},
    "counters of a frozen norm": {**RAW, "frozen.num_batches_tracked": torch.tensor(1)},
    "a buffer that is computed": {**RAW, "grid": torch.arange(4.0)},
}


@pytest.mark.parametrize("content", FORMS.values(), ids=FORMS)
def test_weights_load_under_every_prefix_and_key(tmp_path: Path, content: object) -> None:
    loaded = load(content, tmp_path)
    assert all(torch.equal(loaded[name], RAW[name]) for name in RAW if "num_batches" not in name)


BOTH: dict[str, tuple[object, str, str]] = {
    "two keys": ({"model": RAW, "model_ema": EMA}, "model", "model_ema"),
    "two prefixes": (
        {"state_dict": {**under("model.", RAW), **under("ema_model.", EMA)}},
        "state_dict.model",
        "state_dict.ema_model",
    ),
    "folds": ({"fold0": RAW, "fold1_ema": EMA}, "fold0", "fold1_ema"),
    "an average as a list": (
        {"net": RAW, "ema": {"shadow_params": list(Tiny().parameters())}},
        "net",
        "ema.shadow_params",
    ),
    "an average of the parameters alone": ({"net": RAW, "ema": dict(Tiny().named_parameters())}, "net", "ema"),
}


@pytest.mark.parametrize(("content", "raw", "ema"), BOTH.values(), ids=BOTH)
def test_of_two_that_differ_the_recipe_says_which(tmp_path: Path, content: object, raw: str, ema: str) -> None:
    with pytest.raises(ConfigError, match=rf"'{raw}' and '{ema}' \(an average over training\); .*`weights_key`"):
        load(content, tmp_path)
    assert torch.equal(load(content, tmp_path, key=raw)["fc.bias"], RAW["fc.bias"])


def test_a_key_that_still_names_two_is_asked_for_again(tmp_path: Path) -> None:
    content = {"state_dict": {**under("a.", RAW), **under("b.", EMA)}}
    with pytest.raises(ConfigError, match=r"'state_dict.a' and 'state_dict.b'; say which"):
        load(content, tmp_path, key="state_dict")


def test_the_average_is_loaded_by_its_key(tmp_path: Path) -> None:
    assert torch.equal(load({"model": RAW, "ema": EMA}, tmp_path, key="ema")["fc.bias"], EMA["fc.bias"])


def test_an_unknown_key_is_refused_with_those_that_are_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no weights under `weights_key: ema`; it has \['model'\]"):
        load({"model": RAW}, tmp_path, key="ema")


def test_weights_beside_the_network_are_left_out_only_when_the_recipe_says_so(tmp_path: Path) -> None:
    content = {"state_dict": {**under("backbone.", RAW), "head.weight": torch.ones(2, 3)}}
    with pytest.raises(
        ConfigError, match=r"1 other weights, the first 'head.weight'; .* `weights_key: state_dict.back"
    ):
        load(content, tmp_path)
    assert torch.equal(load(content, tmp_path, key="state_dict.backbone")["fc.bias"], RAW["fc.bias"])


def masked() -> nn.Module:
    network = Tiny()
    prune.l1_unstructured(network.conv, "weight", 0.5)  # type: ignore[no-untyped-call]
    return network


def test_masks_of_pruning_are_applied(tmp_path: Path) -> None:
    network = masked()
    assert torch.equal(load(network.state_dict(), tmp_path)["conv.weight"], network.get_submodule("conv").weight)  # type: ignore[arg-type]


def changed(change: Callable[[Tiny], object]) -> State:
    network = Tiny()
    change(network)
    return network.state_dict()


REASONS: dict[str, tuple[State, str]] = {
    "classes": (trained(classes=7), r"`arguments: \{num_classes: 7\}`"),
    "packed": ({**RAW, "conv.weight": torch.zeros(4, 3, 3, 3, dtype=torch.int8)}, "holds int8, expected floats"),
    "sparse": ({**RAW, "fc.weight": RAW["fc.weight"].to_sparse()}, "fc.weight is a sparse tensor"),
    "without values": ({**RAW, "fc.weight": RAW["fc.weight"].to("meta")}, "fc.weight is without values"),
    "quantised tensors": (
        {**RAW, "fc.weight": torch.quantize_per_tensor(RAW["fc.weight"], 0.1, 0, torch.qint8)},
        "fc.weight is quantised or packed",
    ),
    "arrays": ({name: values.numpy() for name, values in RAW.items()}, "arrays of NumPy"),  # type: ignore[misc]
    "quantised": ({**RAW, "fc.zero_point": torch.zeros(1)}, "it is quantised"),
    "prepared": ({**RAW, "fc.activation_post_process.scale": torch.zeros(1)}, "quantisation-aware training"),
    "an adapter": ({**RAW, "fc.lora_A.weight": torch.zeros(1)}, "adapter"),
    "weight norm": (changed(lambda n: parametrizations.weight_norm(n.fc)), "remove_parametrizations"),
    "NaN": ({**RAW, "fc.bias": torch.full((3,), torch.nan)}, "'fc.bias' holds NaN"),
    "a head in a Sequential": (
        changed(lambda n: setattr(n, "fc", nn.Sequential(nn.Dropout(), nn.Linear(4, 3)))),
        r"say `head: \{fc: \[Dropout, Linear\]\}`",
    ),
    "a head of one layer": (
        {**{k: v for k, v in RAW.items() if "fc" not in k}, "fc.0.weight": torch.ones(3, 4)},
        r"say `head: \{fc: \[Linear\]\}`|head: \{fc: Linear\}",
    ),
    "a head of another class": (
        changed(lambda n: setattr(n, "fc", nn.ModuleDict({"a": nn.Linear(4, 3)}))),
        "def build",
    ),
}


@pytest.mark.parametrize(("state", "message"), REASONS.values(), ids=REASONS)
def test_what_does_not_fit_is_refused_by_its_reason(tmp_path: Path, state: State, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(state, tmp_path)


def test_a_file_to_write_is_told_line_by_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as raised:
        load(REASONS["a head of another class"][0], tmp_path)
    said = tell(raised.value).splitlines()
    assert "    def build():" in said
    assert len(said) < 16


@pytest.mark.parametrize(
    ("head", "layers"),
    [
        (nn.Sequential(nn.Dropout(), nn.Linear(4, 3)), ["Dropout", "Linear"]),
        (nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)), ["Linear", "ReLU", "Linear"]),
        (nn.Sequential(nn.LayerNorm(4), nn.Linear(4, 3)), ["LayerNorm", "Linear"]),
        (nn.Sequential(nn.BatchNorm1d(4), nn.Dropout(), nn.Linear(4, 3)), ["BatchNorm1d", "ReLU", "Linear"]),
        (nn.Linear(4, 3), ["Linear"]),
        (nn.Sequential(*[nn.ReLU()] * 5, nn.Linear(4, 3)), []),
        (nn.ModuleDict({"a": nn.Linear(4, 3)}), []),
    ],
)
def test_the_layers_of_a_head_are_guessed_from_its_weights(head: nn.Module, layers: list[str]) -> None:
    assert guess_layers(head.state_dict()) == layers


@pytest.mark.parametrize(
    ("heads", "message"),
    [
        ({"classifier": "Linear"}, r"the network has no 'classifier'; it has \['conv', 'norm', 'fc'\]"),
        ({"fc": "Conv"}, "torch.nn has no layer 'Conv'"),
        ({"fc": ({"Linear": [4]},)}, "Linear cannot be built with"),
        ({"fc": {"Linear": [4, 3], "ReLU": []}}, "expected a layer and its arguments"),
    ],
)
def test_a_head_that_cannot_be_built_is_refused(heads: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        replace_heads(Tiny(), heads)


def narrowed(network: nn.Module) -> nn.Module:
    """The network with half of the inner channels of its first block with a depthwise layer."""
    block = next(m for m in network.modules() if isinstance(m, mobilenetv3.InvertedResidual) and len(m.block) == 4)
    expand, depthwise, squeeze, project = block.block
    kept = torch.arange(0, expand[0].out_channels, 2)
    for layers in (expand, depthwise):
        layers[0].weight = nn.Parameter(layers[0].weight.detach()[kept])
        for name in ("weight", "bias", "running_mean", "running_var"):
            setattr(layers[1], name, type(getattr(layers[1], name))(getattr(layers[1], name).detach()[kept]))
    depthwise[0].groups = len(kept)
    for layer in (squeeze.fc1, project[0]):
        layer.weight = nn.Parameter(layer.weight.detach()[:, kept])
    squeeze.fc2.weight = nn.Parameter(squeeze.fc2.weight.detach()[kept])
    squeeze.fc2.bias = nn.Parameter(squeeze.fc2.bias.detach()[kept])
    return network


def write_recipe(tiny_recipe: MakeRecipe, content: object, name: str, file: str = "w.pth", **model: Any) -> Path:
    model = {"source": "torchvision", "name": name, "arguments": {"num_classes": 3}, "weights": file, **model}
    path = tiny_recipe(model=model)
    torch.save(content, path.parent / file)
    return path


@pytest.mark.parametrize("wrap", [nn.Sequential, nn.DataParallel])
def test_a_changed_head_gives_the_answers_of_the_training(
    tiny_recipe: MakeRecipe, wrap: Callable[[nn.Module], nn.Module]
) -> None:
    network = resnet18(num_classes=3)
    network.fc = nn.Sequential(nn.Linear(512, 8, bias=False), nn.ReLU(), nn.Dropout(), nn.Linear(8, 3))
    path = write_recipe(
        tiny_recipe, wrap(network).state_dict(), "resnet18", head={"fc": ["Linear", "ReLU", "Dropout", "Linear"]}
    )
    checkpoint = load_checkpoint(read_recipe(path))
    pixels = torch.rand(1, 3, 32, 32)
    assert torch.equal(checkpoint.network(pixels), network.eval()(pixels))
    assert orjson.loads(checkpoint.source.model_dump_json())["head"]["fc"][0] == {
        "Linear": {"in_features": 512, "out_features": 8, "bias": False}
    }


def test_a_pruned_network_takes_its_shapes_from_its_weights_and_so_does_its_archive(
    tiny_recipe: MakeRecipe, tmp_path: Path
) -> None:
    from mar_tools.exporting.export import export_model
    from vision_serving.config import BackendConfig

    network = narrowed(mobilenetv3.mobilenet_v3_small(num_classes=3)).eval()
    path = write_recipe(tiny_recipe, network.state_dict(), "mobilenet_v3_small", shapes="weights")
    recipe = read_recipe(path)
    checkpoint = load_checkpoint(recipe)
    pixels = torch.rand(1, 3, 32, 32)
    with torch.inference_mode():
        assert torch.equal(checkpoint.network(pixels), network(pixels))
    export = export_model(recipe, checkpoint, "eager", "fp32", tmp_path / "exports")
    graph = EagerBackend.load_graph(export / "model", BackendConfig(), torch.device("cpu"))
    with torch.inference_mode():
        assert torch.equal(graph.get_submodule("network")(pixels), network(pixels))


@pytest.mark.parametrize(
    ("network", "name", "shape", "message"),
    [
        (nn.Sequential(nn.MultiheadAttention(8, 2)), "0.in_proj_weight", (12, 8), "how many heads"),
        (nn.Sequential(nn.GroupNorm(2, 8)), "0.weight", (4,), "how many groups"),
        (nn.Sequential(nn.Conv2d(3, 8, 3)), "0.weight", (8, 3, 5, 5), r"has a kernel of \(5, 5\)"),
        (nn.Sequential(nn.Linear(8, 2)), "0.weight", (2, 8, 1, 1), "another number of dimensions"),
    ],
)
def test_what_shapes_do_not_tell_is_refused(
    network: nn.Module, name: str, shape: tuple[int, ...], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        take_shapes(network, {**network.state_dict(), name: torch.zeros(shape)})


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"weights": "random", "shapes": "weights"}, "needs a file of weights"),
        ({"weights": "DEFAULT", "head": {"fc": "Linear"}}, "it needs a file of weights; got weights 'DEFAULT'"),
    ],
)
def test_a_changed_network_needs_a_file(tiny_recipe: MakeRecipe, model: dict[str, Any], message: str) -> None:
    path = tiny_recipe(model={"source": "torchvision", "name": "resnet18", **model})
    with pytest.raises(ConfigError, match=message):
        load_checkpoint(read_recipe(path))


@pytest.mark.parametrize("file", ["last.ckpt", "model_best.pth.tar", "pytorch_model.bin", "w.pt", "net_without_suffix"])
def test_weights_load_from_files_of_every_name(tiny_recipe: MakeRecipe, file: str) -> None:
    path = tiny_recipe()
    state = load_checkpoint(read_recipe(path)).network.state_dict()
    model = {"source": "python", "file": "tiny.py", "class": "TinyClassifier", "weights": file}
    path = tiny_recipe(model=model)
    torch.save({"state_dict": state}, path.parent / file)
    loaded = load_checkpoint(read_recipe(path)).network.state_dict()
    assert all(torch.equal(loaded[name], state[name]) for name in state)


def test_files_are_read_before_anything_is_built(tiny_recipe: MakeRecipe) -> None:
    path = tiny_recipe(labels="labels.txt", model={"source": "timm", "name": "no_such_model", "weights": "w.pth"})
    (path.parent / "labels.txt").write_text("cat\n\ndog\n")
    with pytest.raises(ConfigError, match="line 2 is empty"):
        check_files(read_recipe(path))
    (path.parent / "labels.txt").write_text("cat\ndog\n")
    (path.parent / "w.pth").write_bytes(b"<html>")
    with pytest.raises(ConfigError, match="a page of a website"):
        load_checkpoint(read_recipe(path))
