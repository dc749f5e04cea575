"""A Serve configuration says what config.properties says, of the archives that it lets through."""

import shutil
import zipfile
from pathlib import Path
from typing import Any

import orjson
import pytest

from mar_tools.archives.archive import MANIFEST, open_archive
from mar_tools.archives.signing import read_private_key, sign_archive, write_key_pair
from mar_tools.ray_serving.configuration import ServePlan, plan_serving
from mar_tools.ray_serving.replica import extract_checked
from vision_serving.errors import ConfigError

MODEL = "tiny_classification"
SETTINGS = {"minWorkers": 2, "maxWorkers": 5, "batchSize": 8, "maxBatchDelay": 7}


@pytest.fixture
def store(archive: Path, tmp_path: Path) -> Path:
    shutil.copy(archive, tmp_path)
    return tmp_path / archive.name


def plan(store: Path, *lines: str, **settings: Any) -> ServePlan:
    config = store.parent / "config.properties"
    models = orjson.dumps({MODEL: {"1.0": settings}}).decode()
    config.write_text("\n".join(["model_store=.", "job_queue_size=9", f"models={models}", *lines]))
    return plan_serving(config, ("127.0.0.1", 8080), None)


def applications(found: ServePlan) -> dict[str, Any]:
    return {application["name"]: application for application in found.document["applications"]}


def test_workers_batches_and_queues_are_those_of_the_properties(store: Path) -> None:
    found = applications(plan(store, **SETTINGS))[f"{MODEL}-1.0"]
    (deployment,) = found["deployments"]
    assert (found["args"]["batch_size"], found["args"]["max_batch_delay_ms"]) == (8, 7)
    scaling = {"min_replicas": 2, "max_replicas": 5, "target_ongoing_requests": 8}
    assert {name: deployment["autoscaling_config"][name] for name in scaling} == scaling


def test_the_ingress_knows_the_models_and_the_largest_body(store: Path) -> None:
    found = applications(plan(store, "max_request_size=1000", **SETTINGS))["vision"]
    assert (found["args"]["max_body_bytes"], found["args"]["listen"]) == (1000, ["127.0.0.1", 8080])
    (deployment,) = found["deployments"]
    version = {"application": f"{MODEL}-1.0", "room": 16, "queue": 9, "on_demand": False}
    assert deployment["user_config"] == {"models": {MODEL: {"default": "1.0", "versions": {"1.0": version}}}}


def test_an_archive_without_workers_is_on_the_shelf(store: Path) -> None:
    settings = {**SETTINGS, "minWorkers": 0}
    found = applications(plan(store, **settings))
    assert found.keys() == {"on-demand", "vision"}
    (shelf,), (ingress,) = found["on-demand"]["deployments"], found["vision"]["deployments"]
    spec = shelf["user_config"]["archives"][f"{MODEL}-1.0"]
    assert (spec["model"], spec["batch_size"]) == (MODEL, 8)
    assert ingress["user_config"]["models"][MODEL]["versions"]["1.0"]["on_demand"] is True


def test_an_archive_is_served_by_the_name_that_it_is_given(store: Path) -> None:
    found = applications(plan(store, f"load_models=mine={store.name}"))
    assert found.keys() == {"mine-1.0", "vision"}
    assert found["mine-1.0"]["args"]["model"] == "mine"


def test_an_archive_of_another_s_is_left_out_by_name(store: Path) -> None:
    with zipfile.ZipFile(store.parent / "other.mar", "w") as packed:
        packed.writestr(MANIFEST, orjson.dumps({"model": {"modelName": "other", "modelVersion": "1.0"}}))
    found = plan(store)
    assert applications(found).keys() == {f"{MODEL}-1.0", "vision"}
    assert "only archives of build_model.py run without TorchServe" in found.left_out["other.mar"]


def test_only_signed_archives_are_deployed_where_keys_are_trusted(store: Path) -> None:
    (store.parent / "keys").mkdir()
    private = store.parent / "keys" / "mine.key"
    write_key_pair(private, None)
    with pytest.raises(ConfigError, match="not signed"):
        plan(store, "vision_trusted_keys=keys/*.pub")
    sign_archive(open_archive(store), read_private_key(private, None))
    assert applications(plan(store, "vision_trusted_keys=keys/*.pub")).keys() == {f"{MODEL}-1.0", "vision"}


def test_a_replica_refuses_other_bytes_than_were_checked(store: Path, tmp_path: Path) -> None:
    sha256 = applications(plan(store))[f"{MODEL}-1.0"]["args"]["sha256"]
    extract_checked(store, sha256, tmp_path / "good")
    assert (tmp_path / "good" / "model-config.yaml").is_file()
    store.write_bytes(store.read_bytes() + b"x")
    with pytest.raises(RuntimeError, match="changed after it was checked"):
        extract_checked(store, sha256, tmp_path / "bad")
    assert not (tmp_path / "bad").exists()
