"""What was trained for int8 is computed in int8: OpenVINO itself says in what each layer runs."""

from pathlib import Path

import openvino  # type: ignore[import-untyped]
import torch
from torch import nn

from vision_serving.config import PreprocessingConfig, ResizeConfig
from vision_serving.graphs.construction import build_graph
from vision_serving.graphs.fake_quantization import insert_fake_quantization

SIDE = 32
PREPARED = PreprocessingConfig(resize=ResizeConfig(mode="exact", size=(SIDE, SIDE)), mean=(0.5,) * 3, std=(0.25,) * 3)


def test_each_convolution_with_trained_scales_runs_in_int8(tmp_path: Path) -> None:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.Hardswish(), nn.Conv2d(16, 16, 3), nn.BatchNorm2d(16)]
    network = nn.Sequential(*layers, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4)).eval()
    insert_fake_quantization(network, "affine")
    network.train()(torch.randn(8, 3, SIDE, SIDE))
    graph = build_graph(network, "classification", PREPARED)
    pixels = torch.randint(0, 256, (2, SIDE, SIDE, 3), dtype=torch.uint8)
    with torch.inference_mode():
        model = openvino.convert_model(graph, example_input=(pixels,))
    compiled = openvino.Core().compile_model(model, "CPU")
    precisions = [
        node.get_rt_info()["runtimePrecision"].astype(str)
        for node in compiled.get_runtime_model().get_ops()
        if node.get_rt_info()["layerType"].astype(str) == "Convolution"
    ]
    assert len(precisions) == 2
    assert all("8" in precision for precision in precisions), precisions
    found = torch.from_numpy(compiled([pixels.numpy()])[0])
    expected = graph(pixels)["logits"]
    assert float((found - expected).abs().max()) < 0.1 * float(expected.abs().max())
