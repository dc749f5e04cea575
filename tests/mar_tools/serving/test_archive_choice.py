import zipfile
from pathlib import Path

import orjson
import pytest

from mar_tools.archives.archive import MANIFEST
from mar_tools.serving.archive_choice import Choice, check_registered, choose_archives, find_unnamed
from vision_serving.errors import ConfigError


@pytest.fixture
def store(tmp_path: Path) -> Path:
    for name, model, version in (("a.mar", "digits", "1.0"), ("b.mar", "digits", "2.0"), ("c.mar", "other", "1.0")):
        write_archive(tmp_path / name, model, version)
    return tmp_path


def write_archive(path: Path, model: str, version: str) -> None:
    with zipfile.ZipFile(path, "w") as packed:
        packed.writestr(MANIFEST, orjson.dumps({"model": {"modelName": model, "modelVersion": version}}))


def choose(properties: str, store: Path) -> Choice:
    config = store / "config.properties"
    config.write_text(f"model_store=.\n{properties}")
    return choose_archives(config)


def test_all_of_the_store_is_served_and_a_torn_file_is_left_out_with_its_reason(store: Path) -> None:
    (store / "torn.mar").write_bytes(b"torn")
    choice = choose("load_models=all", store)
    assert choice.served == {"a.mar": ("digits", "1.0"), "b.mar": ("digits", "2.0"), "c.mar": ("other", "1.0")}
    assert list(choice.left_out) == ["torn.mar"]
    assert "not a readable archive" in choice.left_out["torn.mar"]


def test_the_default_version_comes_first(store: Path) -> None:
    properties = 'models={"digits": {"1.0": {}, "2.0": {"defaultVersion": true}}}'
    assert list(choose(properties, store).served) == ["b.mar", "a.mar", "c.mar"]


def test_models_without_settings_are_named_with_the_command_that_names_them(store: Path) -> None:
    choice = choose('models={"digits": {"2.0": {}}}', store)
    lines = find_unnamed(store / "config.properties", choice.served.values())
    assert [line.split(" under ")[0] for line in lines] == [
        "config.properties does not name digits 1.0",
        "config.properties does not name other 1.0",
    ]
    assert "tune_model.py other --by-rule" in lines[1]


def test_a_list_is_kept_with_the_names_that_it_gives(store: Path) -> None:
    choice = choose("load_models=c.mar, mine=a.mar,gone.mar", store)
    assert list(choice.served) == ["c.mar", "mine=a.mar"]
    assert "no such archive" in choice.left_out["gone.mar"]


def test_two_archives_of_one_version_are_both_left_out(store: Path) -> None:
    write_archive(store / "copy.mar", "other", "1.0")
    choice = choose("", store)
    assert list(choice.served) == ["a.mar", "b.mar"]
    assert choice.left_out.keys() == {"c.mar", "copy.mar"}
    assert "c.mar and copy.mar both hold model other 1.0" in choice.left_out["c.mar"]


def test_a_store_without_archives_is_no_fault_but_one_of_bad_ones_is(tmp_path: Path) -> None:
    assert choose("", tmp_path).served == {}
    (tmp_path / "torn.mar").touch()
    with pytest.raises(ConfigError, match=r"torn\.mar: not a readable archive"):
        choose("", tmp_path)


@pytest.mark.parametrize(
    ("models", "message"),
    [
        ("{", "`models` is not valid JSON"),
        ("[]", r"`models`: expected \{"),
        ('{"digits": {"batchSize": 8}}', r"`models`: expected \{"),
        (
            '{"digits": {"1.0": {"batchSize": "x"}}}',
            r"digits 1\.0: batchSize: expected a whole number from 1 .*, got 'x'",
        ),
        ('{"a": {"2": {"batchSize": 0}}}', "a 2: batchSize: expected a whole number from 1 to 2147483647, got 0"),
        ('{"a": {"2": {"batchSize": 2147483648}}}', "batchSize: .* from 1 to 2147483647, got 2147483648"),
        ('{"a": {"2": {"minWorkers": -1}}}', "minWorkers: expected a whole number from 0 to .*, got -1"),
        ('{"a": {"2": {"minWorkers": 3, "maxWorkers": 2}}}', "minWorkers: expected at most maxWorkers, 2, got 3"),
        ('{"a": {"2": {"minWorkers": 3, "maxWorkers": "2"}}}', "minWorkers: expected at most maxWorkers, 2, got 3"),
        ('{"a": {"2": {"maxWorkers": "two"}}}', "maxWorkers: expected a whole number from 0 to .*, got 'two'"),
        ('{"a": {"2": {"batchSize": " 8"}}}', "batchSize: expected a whole number from 1 to .*, got ' 8'"),
        ('{"a": {"2": {"batchSize": true}}}', "batchSize: expected a whole number from 1 to .*, got True"),
        ('{"a": {"2": {"threads": "1"}}}', "threads: expected a whole number from 1 to .*, got '1'"),
        ('{"a": {"2": {"maxBatchDelay": 10001}}}', "maxBatchDelay: expected a whole number from 0 to 10000, got 10001"),
        ('{"a": {"2": {"threads": 0}}}', "threads: expected a whole number from 1"),
        ('{"a": {"2": {"marName": "../x.mar"}}}', "marName: expected the name of a file in the model store"),
        ('{"a": {"2": {"batchSize": 8, "batchSize": 4}}}', "`models`: the key 'batchSize' stands twice"),
        ('{"a": {"2": {}}, "a": {"2": {}}}', "`models`: the key 'a' stands twice"),
        ('{"digits": {"1.0": {"batchsize": 8}}}', r"digits 1\.0: unknown key 'batchsize'; did you mean 'batchSize'\?"),
        ('{"a": {"2": {"marName": "a.mar", "max-workers": 1}}}', r"a 2: unknown key 'max-workers'.* 'maxWorkers'\?"),
        (
            '{"a": {"2": {"memoryHeadroomMb": 1}}}',
            r"'memoryHeadroomMb'; did you mean 'memory_headroom_mb'\?",
        ),
        ('{"a": {"2": {"colour": 1}}}', r"unknown key 'colour'; expected one of \['batchSize', .*'threads'\]"),
    ],
)
def test_models_that_torchserve_could_not_read_are_refused(models: str, message: str, store: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        choose(f"models={models}", store)


def test_numbers_of_torchserve_may_be_texts_as_it_reads_them(store: Path) -> None:
    numbers = '"minWorkers": "1", "maxWorkers": "2", "batchSize": "8", "maxBatchDelay": "10000"'
    assert choose(f'models={{"a": {{"2": {{{numbers}}}}}}}', store).served


@pytest.mark.parametrize("line", ["vision_trusted_key=keys/*.pub", "vision_trusted_keys: keys/*.pub", "# caf\xe9"])
def test_a_running_server_registers_by_no_settings_that_a_start_refuses(line: str, store: Path) -> None:
    config = store / "config.properties"
    config.write_bytes(f"model_store=.\n{line}\n".encode("latin-1"))
    for attempt in (lambda: choose_archives(config), lambda: check_registered(config, "a.mar")):
        with pytest.raises(ConfigError, match=r"vision_trusted_keys|line 2"):
            attempt()
