import json
from pathlib import Path

import pytest

from vision_serving.cores import ThreadPlan, plan_threads, usable_cores
from vision_serving.errors import ConfigError
from vision_serving.worker.guard import is_worker
from vision_serving.worker.server_settings import (
    configured_answer_bytes,
    configured_headroom_mb,
    configured_threads,
    read_batch_size,
    read_headroom_mb,
    read_properties,
    read_text,
    read_threads,
    read_workers,
)

MODELS = r"""
# workers and batching
default_workers_per_model = 3
models={\
  "resnet50": {\
    "1.0": {"marName": "resnet50.mar", "minWorkers": 2, "maxWorkers": 4, "batchSize": 16},\
    "2.0": {"marName": "resnet50.mar", "minWorkers": 5, "batchSize": 4}\
  },\
  "digits": {"1.0": {"marName": "digits.mar"}}\
}
"""


@pytest.mark.parametrize(
    ("text", "model", "version", "workers"),
    [
        pytest.param("", "resnet50", "1.0", 1, id="empty file"),
        pytest.param("default_workers_per_model=4", "resnet50", "1.0", 4, id="default"),
        pytest.param(MODELS, "resnet50", "1.0", 2, id="a version"),
        pytest.param(MODELS, "resnet50", "2.0", 5, id="another version"),
        pytest.param(MODELS, "resnet50", "3.0", 3, id="a version that is not listed"),
        pytest.param(MODELS, "digits", "1.0", 1, id="no minWorkers"),
        pytest.param(MODELS, "other", "1.0", 3, id="not listed"),
        pytest.param(
            "# C:\\models\\\ndefault_workers_per_model=4",
            "resnet50",
            "1.0",
            4,
            id="after a comment that ends with a backslash",
        ),
    ],
)
def test_the_workers_of_a_model_are_read_from_the_properties(text: str, model: str, version: str, workers: int) -> None:
    assert read_workers(text, model, version) == workers


@pytest.mark.parametrize("threads", ["auto", 0, -1, 1.5])
def test_threads_that_are_no_number_are_refused(threads: object) -> None:
    text = f"models={json.dumps({'digits': {'1.0': {'threads': threads}}})}"
    with pytest.raises(ConfigError, match=r"`models`, digits 1\.0: expected 1 or more `threads`, got"):
        read_threads(text, "digits", "1.0")


@pytest.mark.parametrize(
    ("version", "plan"),
    [
        ({"minWorkers": 2}, ThreadPlan(engine=4, decode=4, pin=False)),
        ({"minWorkers": 2, "threads": 1}, ThreadPlan(engine=1, decode=1, pin=False)),
        ({"threads": 16}, ThreadPlan(engine=16, decode=8, pin=True)),
    ],
    ids=["a fair share", "fewer", "more"],
)
def test_the_threads_of_a_model_are_its_share_or_as_the_properties_say(
    version: dict[str, int], plan: ThreadPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vision_serving.worker.server_settings.usable_cores", lambda: 8)
    assert read_threads(f"models={json.dumps({'digits': {'1.0': version}})}", "digits", "1.0") == plan


@pytest.mark.parametrize(("model", "batch_size"), [("resnet50", 16), ("digits", None), ("other", None)])
def test_the_batch_size_of_a_model_is_read_from_the_properties(model: str, batch_size: int | None) -> None:
    assert read_batch_size(MODELS, model) == batch_size


@pytest.mark.parametrize(
    ("line", "place"),
    [("models={", "at its end"), ('models={\\\n"digits": eight}', "at 'eight}'")],
    ids=["cut", "word"],
)
def test_models_that_are_no_json_are_refused_by_the_place(line: str, place: str) -> None:
    with pytest.raises(ConfigError, match=f"`models` is not valid JSON: .* {place}"):
        read_workers(line, "resnet50", "1.0")


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("", {}),
        ("# a=1\n! b=2\n  # c=3", {}),
        (" a = 1 ", {"a": "1"}),
        ("a=b=c", {"a": "b=c"}),
        ("a=1,\\\n2,\\\n3", {"a": "1,2,3"}),
        ("a=1\na=2", {"a": "2"}),
        ("a=1\\\\\nb=2", {"a": "1\\\\", "b": "2"}),
        ("a=1\\\n  #2", {"a": "1#2"}),
        ("a=1\\", {"a": "1"}),
    ],
    ids=[
        "empty",
        "comments",
        "spaces",
        "equals sign in the value",
        "continued",
        "last wins",
        "no escape",
        "no comment",
        "end",
    ],
)
def test_a_properties_file_is_read(text: str, values: dict[str, str]) -> None:
    assert read_properties(text) == values


@pytest.mark.parametrize(
    "line",
    [
        "vision_trusted_keys: keys/a=b.pub",
        "vision_trusted_keys keys/*.pub",
        "vision_trusted_keys:keys/*.pub",
        "  vision\\u005ftrusted_keys=keys/*.pub",
        "vision_trusted_keys\\=keys/*.pub",
        "vision_trusted_keys",
        "=keys/*.pub",
    ],
)
def test_a_pair_that_java_alone_would_take_is_refused_with_its_line(line: str) -> None:
    with pytest.raises(ConfigError, match=r"^config.properties: line 3: expected key=value, got ") as refused:
        read_properties(f"a=1,\\\n2\n{line}\n")
    assert str(refused.value).endswith(f"got {line.strip()!r}")


def test_a_byte_that_is_no_utf8_is_refused_with_its_line(tmp_path: Path) -> None:
    config = tmp_path / "config.properties"
    config.write_bytes(b"a=1\n# caf\xe9\n")
    with pytest.raises(ConfigError, match=r"config\.properties: line 2: expected UTF-8, got the byte 0xe9"):
        read_text(config)


def test_another_server_names_its_settings_in_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "config.properties"
    config.write_text('max_response_size=1234\nmodels={"digits": {"1.0": {"threads": 3, "memory_headroom_mb": 5}}}\n')
    monkeypatch.setenv("VISION_SERVING_CONFIG", str(config))
    assert configured_threads("digits", "1.0").engine == 3
    assert configured_headroom_mb("digits", "1.0") == 5
    assert configured_answer_bytes() == 1234
    assert is_worker()


def test_without_torchserve_a_model_has_one_worker() -> None:
    assert configured_threads("resnet50", "1.0") == plan_threads(usable_cores(), 1)


@pytest.mark.parametrize(
    ("setting", "headroom_mb"), [({}, 4096), ({"memory_headroom_mb": 512}, 512), ({"memory_headroom_mb": 0}, 0)]
)
def test_the_memory_headroom_of_a_model_is_as_the_properties_say(setting: dict[str, int], headroom_mb: int) -> None:
    text = f"models={json.dumps({'digits': {'1.0': setting}})}"
    assert read_headroom_mb(text, "digits", "1.0") == headroom_mb
    assert read_headroom_mb(text, "digits", "2.0") == 4096


@pytest.mark.parametrize("headroom", [-1, "1 GB", 1.5, True, None])
def test_a_memory_headroom_that_is_no_number_is_refused(headroom: object) -> None:
    text = f"models={json.dumps({'digits': {'1.0': {'memory_headroom_mb': headroom}}})}"
    with pytest.raises(ConfigError, match=r"digits 1\.0: expected `memory_headroom_mb` from 0, which is no limit, got"):
        read_headroom_mb(text, "digits", "1.0")
