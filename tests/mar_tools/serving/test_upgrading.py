import json
import zipfile
from pathlib import Path
from typing import Any

import orjson
import pytest

from mar_tools.archives.archive import MANIFEST
from mar_tools.serving.address import ServerAddress
from mar_tools.serving.archive_choice import check_registered, choose_archives, register_checked
from mar_tools.serving.request_counts import Counts, find_too_many_failures, read_counts
from mar_tools.serving.torchserve_api import ServerError, TorchServeClient
from mar_tools.serving.upgrade_config import advise, name_version
from mar_tools.serving.upgrading import Plan, Upgrade, Upgraded, plan_upgrade
from vision_serving.errors import ConfigError
from vision_serving.worker.server_settings import read_model, read_properties

NOWHERE = TorchServeClient(ServerAddress("http://127.0.0.1:1", "http://127.0.0.1:1", None))
METRICS = """# HELP Requests2XX Torchserve prometheus counter metric with unit: Count
# TYPE Requests2XX counter
Requests2XX{Level="Host",Hostname="vm",} 90.0
Requests4XX{Level="Host",Hostname="vm",} 3.0
Requests5XX{Level="Host",Hostname="vm",} 1.0
ts_inference_requests_total{model_name="digits",model_version="default",hostname="vm",} 1.2E1
ts_inference_requests_total{model_name="digits",model_version="1.0",hostname="vm",} 8.0
"""
SETTINGS = {"minWorkers": 1, "maxWorkers": 4, "batchSize": 8, "maxBatchDelay": 2}
OLD = {"modelVersion": "1.0", "modelUrl": "digits.mar", **SETTINGS}
PROPERTIES = """# how this machine serves
load_models=digits.mar,other.mar
models={\\
  "digits": {"1.0": {"marName": "digits.mar", "threads": 3, "minWorkers": 1}},\\
  "other": {"1.0": {"minWorkers": 1}}\\
}
"""


@pytest.fixture
def store(tmp_path: Path) -> Path:
    write_archive(tmp_path / "digits_2.mar", "2.0")
    (tmp_path / "config.properties").write_text("model_store=.\n")
    return tmp_path


@pytest.fixture
def plan(store: Path) -> Plan:
    return Plan(check_registered(store / "config.properties", "digits_2.mar"), OLD, 2)


def write_archive(path: Path, version: str) -> None:
    with zipfile.ZipFile(path, "w") as packed:
        packed.writestr(MANIFEST, orjson.dumps({"model": {"modelName": "digits", "modelVersion": version}}))


def counts(requests: float, failed: float) -> Counts:
    return Counts({("digits", "default"): requests}, failed)


def test_requests_are_counted_by_version_and_failures_of_all() -> None:
    found = read_counts(METRICS)
    assert found == Counts({("digits", "default"): 12.0, ("digits", "1.0"): 8.0}, 4.0)
    assert found.since(Counts({("digits", "1.0"): 5.0}, 1.0)) == Counts(
        {("digits", "default"): 12.0, ("digits", "1.0"): 3.0}, 3.0
    )
    assert read_counts("") is None
    assert read_counts("# TYPE Requests5XX counter\n") == Counts({}, 0.0)


@pytest.mark.parametrize(
    ("before", "during", "bad"),
    [
        (counts(0, 0), counts(100, 0), False),
        (counts(0, 0), counts(100, 2), False),
        (counts(0, 0), counts(100, 3), True),
        (counts(1000, 100), counts(100, 11), False),
        (counts(1000, 100), counts(100, 13), True),
        (counts(0, 0), counts(0, 5), True),
        (counts(0, 0), counts(0, 0), False),
    ],
    ids=["none", "chance", "too many", "as before", "more than before", "without a request", "no traffic"],
)
def test_a_version_is_no_good_when_clearly_more_answers_fail_than_before(
    before: Counts, during: Counts, bad: bool
) -> None:
    assert (find_too_many_failures(before, during, 0.02) is not None) == bad


def test_what_lasts_is_the_new_version_with_the_settings_of_the_old_one(plan: Plan) -> None:
    kept = {"threads": 3, "sample_share": 0.5, "memory_headroom_mb": 512, "responseTimeout": 300}
    text = name_version(PROPERTIES.replace('"threads": 3', json.dumps(kept)[1:-1]), plan)
    section = {"minWorkers": 2, "maxWorkers": 4, "batchSize": 8, "maxBatchDelay": 2, **kept}
    assert read_model(text, "digits") == {"2.0": {"defaultVersion": True, "marName": "digits_2.mar", **section}}
    assert read_model(text, "other") == {"1.0": {"minWorkers": 1}}
    assert read_properties(text)["load_models"] == "digits_2.mar,other.mar"
    assert text.startswith("# how this machine serves\n")


@pytest.mark.parametrize(
    ("properties", "written", "expected"),
    [
        ("load_models=all", True, ["move digits.mar away"]),
        ("load_models=all", False, ['"marName": "digits_2.mar"', "move digits.mar away"]),
        ("load_models=digits_2.mar", True, []),
    ],
)
def test_what_is_left_to_do_is_told(plan: Plan, properties: str, written: bool, expected: list[str]) -> None:
    config = plan.archive.path.parent / "config.properties"
    config.write_text(properties)
    advice = list(advise(config, Upgraded(plan, "right", None), written))
    assert len(advice) == len(expected)
    assert all(part in line for part, line in zip(expected, advice, strict=True))


def test_an_archive_that_the_policy_refuses_is_refused_before_the_server_is_asked(tmp_path: Path) -> None:
    config = tmp_path / "config.properties"
    config.write_text("model_store=.\nvision_archives=ours\n")
    write_archive(tmp_path / "other.mar", "2.0")
    with pytest.raises(ConfigError, match=r"other\.mar"):
        plan_upgrade(NOWHERE, config, "other.mar", None)


@pytest.mark.parametrize("name", ["{elsewhere}/digits_2.mar", "../elsewhere/digits_2.mar", "./digits_2.mar", "..", ""])
def test_a_path_is_no_name_of_the_store_for_an_upgrade_a_registration_or_a_start(
    store: Path, tmp_path_factory: pytest.TempPathFactory, name: str
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    write_archive(elsewhere / "digits_2.mar", "3.0")
    config, name = store / "config.properties", name.format(elsewhere=elsewhere)
    for attempt in (lambda: plan_upgrade(NOWHERE, config, name, None), lambda: check_registered(config, name)):
        with pytest.raises(ConfigError, match=r"expected the file name of an archive in|Is a directory"):
            attempt()
    if name:
        config.write_text(f"model_store=.\nload_models={name}\n")
        with pytest.raises(ConfigError, match="expected the file name of an archive in"):
            choose_archives(config)


class ServerWithATwin(TorchServeClient):
    """While it loads, somebody puts another archive into the place of the one that was checked."""

    def __init__(self, store: Path, failure: Exception | None) -> None:
        super().__init__(ServerAddress("http://127.0.0.1:1", "http://127.0.0.1:1", None))
        self.store, self.failure = store, failure
        self.versions = {"1.0": "digits_2.mar"}  # from an earlier file of that name

    def list_models(self) -> list[str]:
        return ["digits"]

    def describe(self, model: str, version: str | None = None) -> list[dict[str, Any]]:
        return [{"modelVersion": each, "modelUrl": url} for each, url in self.versions.items()]

    def register(self, archive: str, workers: int, batch_size: int, max_batch_delay_ms: int) -> Any:
        write_archive(self.store / archive, "6.66")
        self.versions |= {"6.66": archive, "3.0": "of_another_operator.mar"}
        if self.failure is not None:
            raise self.failure
        return {"status": "served"}

    def unregister(self, model: str, version: str | None) -> Any:
        del self.versions[str(version)]


@pytest.mark.parametrize("failure", [None, ServerError("its workers end")], ids=["served", "its workers end"])
def test_what_took_the_place_of_a_checked_archive_is_taken_out_again_and_nothing_else(
    plan: Plan, store: Path, failure: Exception | None
) -> None:
    client = ServerWithATwin(store, failure)
    with pytest.raises(ConfigError, match="changed after it was checked"):
        register_checked(client, plan.archive, 1, 1, 1)
    assert list(client.versions) == ["1.0", "3.0"]


def test_a_start_finds_an_archive_that_changed_while_it_was_loaded(store: Path) -> None:
    choice = choose_archives(store / "config.properties")
    choice.require_unchanged()
    data = (store / "digits_2.mar").read_bytes()
    (store / "digits_2.mar").unlink()
    (store / "digits_2.mar").write_bytes(data)
    with pytest.raises(ConfigError, match="changed after it was checked"):
        choice.require_unchanged()


class InterruptedServer(TorchServeClient):
    """Somebody presses Ctrl-C while it loads the new version."""

    def __init__(self) -> None:
        super().__init__(ServerAddress("http://127.0.0.1:1", "http://127.0.0.1:1", None))
        self.versions = ["1.0"]

    def list_models(self) -> list[str]:
        return ["digits"]

    def describe(self, model: str, version: str | None = None) -> list[dict[str, Any]]:
        return [{"modelVersion": each, "modelUrl": "digits_2.mar"} for each in self.versions]

    def read_metrics(self) -> str:
        return METRICS

    def register(self, archive: str, workers: int, batch_size: int, max_batch_delay_ms: int) -> Any:
        self.versions.append("2.0")
        raise KeyboardInterrupt

    def unregister(self, model: str, version: str | None) -> Any:
        self.versions.remove(str(version))


def test_an_upgrade_that_is_interrupted_while_it_loads_leaves_nothing_behind(plan: Plan, tmp_path: Path) -> None:
    client = InterruptedServer()
    with pytest.raises(KeyboardInterrupt):
        Upgrade(client, tmp_path / "config.properties", plan, lambda step: None).run(0, 0.02, keep_old=False)
    assert client.versions == ["1.0"]
