import gc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from vision_serving.batching import Batcher
from vision_serving.errors import DeviceLostError, InferenceError, OutOfResourcesError, RequestError
from vision_serving.foreign_errors import is_device_lost, is_out_of_memory, to_request_error
from vision_serving.geometry import ImageGeometry
from vision_serving.options import ClassificationOptions, Options
from vision_serving.pictures.preparation import PreparedImage
from vision_serving.pictures.resizing import ImageBatch
from vision_serving.predictions import Classification, ClassScore, Prediction
from vision_serving.timings import StageTimings

CPU, GPU = torch.device("cpu"), torch.device("cuda:0")
ILLEGAL = "CUDA error: an illegal memory access was encountered"


@dataclass(frozen=True)
class Stages:
    """Of a model that answers with the value of each image."""

    infer: Callable[[ImageBatch], dict[str, Tensor]]

    def inference(self, batch: ImageBatch) -> dict[str, Tensor]:
        return self.infer(batch)

    def postprocess(
        self, outputs: Mapping[str, Tensor], batch: ImageBatch, options: Sequence[Options]
    ) -> list[Prediction]:
        return [Classification((ClassScore(int(value), "", 1.0),)) for value in outputs["value"]]

    def join(
        self, predictions: Sequence[Prediction], geometries: Sequence[ImageGeometry], options: Options
    ) -> Prediction:
        return predictions[0]


def run(infer: Callable[[ImageBatch], dict[str, Tensor]], count: int, device: torch.device) -> list[object]:
    """What becomes of images of the values 0, 1, ...: the value of each, or its error's type."""
    geometry = ImageGeometry((1, 1), (1, 1), (0, 0))
    items = [
        PreparedImage((value, 0), ImageBatch(torch.full((1, 1, 1, 3), value, dtype=torch.uint8), (geometry,)), OPTIONS)
        for value in range(count)
    ]
    results = Batcher(Stages(infer), 8, device).predict(items, StageTimings())
    found = [results[value, 0] for value in range(count)]
    return [f.classes[0].class_id if isinstance(f, Classification) else type(f) for f in found]


OPTIONS = ClassificationOptions()


class Failing:
    """Gives values, and fails with `error` while the batch holds `culprit`, at most `times` times."""

    def __init__(self, error: Exception, culprit: int, times: int = 1000) -> None:
        self.error, self.culprit, self.times = error, culprit, times
        self.sizes: list[int] = []

    def __call__(self, batch: ImageBatch) -> dict[str, Tensor]:
        values = batch.pixels[:, 0, 0, 0]
        self.sizes.append(len(values))
        if self.culprit in values and self.times > 0:
            self.times -= 1
            raise self.error
        return {"value": values}


def test_on_a_gpu_one_image_is_tried_once_more_when_memory_ran_out() -> None:
    infer = Failing(torch.OutOfMemoryError("CUDA out of memory"), culprit=0, times=2)
    assert run(infer, 2, GPU) == [0, 1]
    assert infer.sizes == [2, 1, 1, 1]


@pytest.mark.parametrize(("device", "sizes"), [(GPU, [2, 1, 1, 1]), (CPU, [2, 1, 1])], ids=["gpu", "cpu"])
def test_an_image_for_which_memory_never_suffices_is_a_507(device: torch.device, sizes: list[int]) -> None:
    infer = Failing(torch.OutOfMemoryError("CUDA out of memory"), culprit=0)
    assert run(infer, 2, device) == [OutOfResourcesError, 1]
    assert infer.sizes == sizes


def test_other_errors_are_not_tried_again() -> None:
    infer = Failing(ValueError("out of range"), culprit=1)
    assert run(infer, 2, GPU) == [0, InferenceError]
    assert infer.sizes == [2, 1, 1]


def test_a_lost_gpu_is_not_asked_again_for_the_halves_of_a_batch() -> None:
    infer = Failing(RuntimeError(ILLEGAL), culprit=2)
    assert run(infer, 4, GPU) == [DeviceLostError] * 4
    assert infer.sizes == [4]


class Buffer:
    """What a batch holds while it runs, in a ring, which only the garbage collector frees."""

    alive = 0

    def __init__(self) -> None:
        self.ring = self
        Buffer.alive += 1

    def __del__(self) -> None:
        Buffer.alive -= 1


def test_memory_is_free_before_the_halves_of_a_batch_run(monkeypatch: pytest.MonkeyPatch) -> None:
    emptied, alive = [], []
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: emptied.append(Buffer.alive))

    def infer(batch: ImageBatch) -> dict[str, Tensor]:
        alive.append(Buffer.alive)
        buffer = Buffer()
        if len(batch.pixels) > 1:
            raise MemoryError(buffer)
        return {"value": batch.pixels[:, 0, 0, 0]}

    gc.disable()
    try:
        assert run(infer, 2, GPU) == [0, 1]
    finally:
        gc.enable()
    assert emptied == [0]
    assert alive[:2] == [0, 0]


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried"),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("std::bad_alloc"),
        RuntimeError("Check 'ptr' failed at cpu_memory.cpp:257:\nFailed to allocate 2147483648 bytes of memory"),
        RuntimeError("[ONNXRuntimeError] : 1 : FAIL : Failed to allocate memory for requested buffer of size 42"),
        RuntimeError("could not create a memory object"),
    ],
    ids=lambda error: str(error)[:30],
)
def test_what_runtimes_say_when_memory_runs_out_is_507(error: Exception) -> None:
    assert is_out_of_memory(error)
    assert not is_device_lost(error)
    assert isinstance(to_request_error(error), OutOfResourcesError)


@pytest.mark.parametrize(
    "text",
    [
        ILLEGAL,
        "CUDA error: device-side assert triggered\nCUDA kernel errors might be asynchronously reported",
        "CUDA error: unspecified launch failure",
        "CUDA failure 700: an illegal memory access was encountered ; GPU=0",
        "cuDNN error: CUDNN_STATUS_EXECUTION_FAILED",
    ],
)
def test_an_error_of_cuda_is_a_lost_gpu(text: str) -> None:
    assert is_device_lost(RuntimeError(text))
    assert isinstance(to_request_error(RuntimeError(text)), DeviceLostError)
    assert to_request_error(RuntimeError(text)).status == 500


def test_a_runtime_that_says_that_it_is_lost_is_not_asked_again() -> None:
    infer = Failing(DeviceLostError(), culprit=0)
    assert run(infer, 4, CPU) == [DeviceLostError] * 4
    assert infer.sizes == [4]


def test_a_gpu_that_still_answers_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    assert not is_device_lost(RuntimeError("CUDA error: invalid configuration argument"))
    assert type(to_request_error(RuntimeError("CUDA error: invalid argument"))) is InferenceError


def test_no_line_of_a_foreign_error_begins_as_those_that_torchserve_reads(caplog: pytest.LogCaptureFixture) -> None:
    error: RequestError = to_request_error(ValueError("a\n[PID]1\n[METRICS]x"))
    assert type(error) is InferenceError
    assert "[PID]1" in caplog.text
    assert [line for line in caplog.text.splitlines() if line.startswith("[")] == []
