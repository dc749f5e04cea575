"""What serves a model that nobody has tuned: workers for the cores and the memory, and batches."""

import shutil
from pathlib import Path

import pytest

from mar_tools.archives.archive import check_archive
from mar_tools.tuning.deployment import write_settings_by_rule
from mar_tools.tuning.rule import settings_by_rule
from mar_tools.tuning.space import Settings
from vision_serving.cores import usable_cores
from vision_serving.errors import ConfigError
from vision_serving.worker.server_settings import read_model

GIB = 1 << 30
OLD = '{"defaultVersion": true, "marName": "old.mar", "minWorkers": 1, "batchSize": 3, "sample_share": 0.1}'


@pytest.mark.parametrize(
    ("cores", "memory_gib", "gpus", "workers", "threads", "batch_size"),
    [
        (1, 16, 0, 1, 1, 8),
        (2, 16, 0, 2, 1, 8),
        (16, 64, 0, 4, 4, 8),
        (16, 4, 0, 2, 8, 8),  # two copies of the model in half of the memory
        (8, 1, 0, 1, 8, 8),
        (16, 128, 2, 4, 4, 32),
    ],
)
def test_the_rule_fits_cores_memory_and_gpus(
    cores: int, memory_gib: int, gpus: int, workers: int, threads: int, batch_size: int
) -> None:
    found = settings_by_rule(cores, memory_gib * GIB, gpus)
    assert (found.workers, found.threads, found.batch_size) == (workers, threads, batch_size)


@pytest.fixture
def store(archive: Path, tmp_path: Path) -> Path:
    """A server's folder with one archive in its store, and settings that name nothing."""
    (tmp_path / "model_store").mkdir()
    shutil.copy(archive, tmp_path / "model_store" / "tiny.mar")
    (tmp_path / "config.properties").write_text("# mine\nmodel_store=model_store\nmodels={}\n")
    return tmp_path


def name_of(archive: Path) -> str:
    name, version = check_archive(archive)
    assert version == "1.0"
    return name


def sections(store: Path) -> dict[str, dict[str, object]]:
    name = name_of(store / "model_store" / "tiny.mar")
    return read_model((store / "config.properties").read_text(), name)


def test_a_model_that_is_not_named_gets_the_settings_of_the_rule(store: Path) -> None:
    settings = write_settings_by_rule(store / "config.properties", store / "model_store" / "tiny.mar")
    workers = min(usable_cores(), 4)
    assert settings == Settings(workers, usable_cores() // workers, 8, 5)
    section = sections(store)["1.0"]
    assert (section["marName"], section["defaultVersion"], section["minWorkers"]) == ("tiny.mar", True, workers)
    assert "threads" not in section, "on a machine with more cores each worker takes more"
    assert (store / "config.properties").read_text().startswith("# mine\n")


def test_what_is_named_stays_as_it_is(store: Path, archive: Path) -> None:
    config = store / "config.properties"
    config.write_text(f'model_store=model_store\nmodels={{"{name_of(archive)}": {{"1.0": {OLD}}}}}\n')
    before = config.read_text()
    assert write_settings_by_rule(config, store / "model_store" / "tiny.mar") is None
    assert config.read_text() == before


def test_another_version_is_served_as_the_last_one_and_answers_by_its_number(store: Path, archive: Path) -> None:
    config = store / "config.properties"
    config.write_text(f'model_store=model_store\nmodels={{"{name_of(archive)}": {{"0.9": {OLD}}}}}\n')
    settings = write_settings_by_rule(config, store / "model_store" / "tiny.mar")
    assert settings is not None
    assert (settings.workers, settings.batch_size) == (1, 3)
    found = sections(store)
    assert (found["0.9"]["defaultVersion"], found["1.0"]["defaultVersion"]) == (True, False)
    assert (found["1.0"]["marName"], found["1.0"]["sample_share"]) == ("tiny.mar", 0.1)


def test_an_archive_elsewhere_is_not_named(store: Path, archive: Path) -> None:
    assert write_settings_by_rule(store / "config.properties", archive) is None
    assert sections(store) == {}


def test_a_file_that_cannot_be_written_is_said_with_what_to_do(store: Path) -> None:
    (store / ".config.properties.new").mkdir()  # where the new text would be
    with pytest.raises(ConfigError, match=r"name it under `models` there, or give --keep-settings"):
        write_settings_by_rule(store / "config.properties", store / "model_store" / "tiny.mar")
