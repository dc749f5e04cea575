"""What a cloud's environment becomes, and what of it is refused."""

import shutil
from pathlib import Path

import pytest

from mar_tools.archives.archive import open_archive
from mar_tools.archives.policy import check_served, read_policy
from mar_tools.archives.signing import read_private_key, sign_archive, write_key_pair
from mar_tools.command_line import ROOT
from mar_tools.front.clouds import choose_model, find_archives, format_routes, read_contract, read_port, write_places
from vision_serving.errors import ConfigError

VERTEX_ROUTE = "/v1/endpoints/1/deployedModels/2"


@pytest.fixture
def store(archives: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "store"
    folder.mkdir()
    shutil.copy(archives / "digits.mar", folder)
    return folder


@pytest.mark.parametrize(
    ("environment", "port"),
    [
        ({}, 8080),
        ({"AIP_HTTP_PORT": ""}, 8080),
        ({"AIP_HTTP_PORT": "7080"}, 7080),
        ({"SAGEMAKER_BIND_TO_PORT": "8081"}, 8081),
    ],
)
def test_the_port_is_the_platforms(environment: dict[str, str], port: int) -> None:
    assert read_port(environment) == port


@pytest.mark.parametrize("port", ["0", "65536", "80a", "-1", "٣٣"])
def test_what_is_no_port_is_refused(port: str) -> None:
    with pytest.raises(ConfigError, match="AIP_HTTP_PORT: expected a port"):
        read_port({"AIP_HTTP_PORT": port})


def test_the_routes_are_those_of_all_three(store: Path) -> None:
    plain = read_contract({}, store)
    assert (plain.health_routes, plain.predict_routes) == (("/ping",), ("/invocations", "/score"))
    given = {"AIP_HEALTH_ROUTE": VERTEX_ROUTE, "AIP_PREDICT_ROUTE": f"{VERTEX_ROUTE}:predict"}
    vertex = read_contract(given, store)
    assert vertex.health_routes == ("/ping", VERTEX_ROUTE)
    assert vertex.predict_routes == ("/invocations", "/score", f"{VERTEX_ROUTE}:predict")


def test_the_fronts_own_route_is_sent_nowhere_else(store: Path) -> None:
    found = read_contract({"AIP_PREDICT_ROUTE": "/predictions/digits"}, store)
    assert "location = /predictions/digits" not in format_routes(found, 8083)


@pytest.mark.parametrize("route", ["predict", "/", "/a b", "/a;}", "/a\n", "/a{", '/"'])
def test_what_is_no_route_never_reaches_nginx(store: Path, route: str) -> None:
    with pytest.raises(ConfigError, match="AIP_PREDICT_ROUTE: expected a path"):
        read_contract({"AIP_PREDICT_ROUTE": route}, store)


@pytest.mark.parametrize("route", ["/invocations", "/predictions/digits"])
def test_one_route_cannot_be_both(store: Path, route: str) -> None:
    with pytest.raises(ConfigError, match=r"AIP_HEALTH_ROUTE: .* is a route of predictions"):
        read_contract({"AIP_HEALTH_ROUTE": route}, store)


def test_azures_folder_is_searched_and_goes_before_the_images_store(store: Path, tmp_path: Path) -> None:
    brought = tmp_path / "models" / "digits" / "1"
    brought.mkdir(parents=True)
    shutil.copy(store / "digits.mar", brought / "other.mar")
    environment = {"AZUREML_MODEL_DIR": str(tmp_path / "models")}
    assert [path.name for path in find_archives(environment, store)] == ["other.mar"]
    (brought / "other.mar").unlink()
    assert [path.name for path in find_archives(environment, store)] == ["digits.mar"]


def test_hidden_files_and_folders_are_no_archives(store: Path) -> None:
    """macOS packs `._digits.mar` into a model.tar.gz; mounted volumes have `..data`."""
    (store / "._digits.mar").write_bytes(b"attributes")
    (store / "..2026_11_30").mkdir()
    shutil.copy(store / "digits.mar", store / "..2026_11_30")
    (store / "digits.mar").unlink()
    (store / "digits.mar").symlink_to("..2026_11_30/digits.mar")
    assert [path.name for path in find_archives({}, store)] == ["digits.mar"]


def test_two_archives_of_one_name_are_refused(store: Path) -> None:
    (store / "more").mkdir()
    shutil.copy(store / "digits.mar", store / "more")
    with pytest.raises(ConfigError, match=r"two archives are called digits\.mar"):
        find_archives({}, store)


def test_vertex_ai_is_told_that_nothing_is_fetched(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nothing is fetched from AIP_STORAGE_URI, so put archives into the image"):
        find_archives({"AIP_STORAGE_URI": "gs://bucket/models"}, tmp_path)


def test_of_several_models_one_is_chosen() -> None:
    for empty in ({}, {"VISION_MODEL": ""}):
        assert choose_model(empty, ["digits", "digits"]) == "digits"
    assert choose_model({"VISION_MODEL": "b"}, ["a", "b"]) == "b"
    for environment in ({}, {"VISION_MODEL": "c"}):
        with pytest.raises(ConfigError, match="VISION_MODEL: expected the model that answers, one of a, b; got"):
            choose_model(environment, ["a", "b"])


def test_archives_of_an_earlier_start_are_gone(store: Path, tmp_path: Path) -> None:
    state = tmp_path / "state"
    write_places(read_contract({}, store), ROOT / "config.properties", state)
    shutil.move(store / "digits.mar", store / "renamed.mar")
    places = write_places(read_contract({}, store), ROOT / "config.properties", state)
    assert [path.name for path in (places.config.parent / "model_store").iterdir()] == ["renamed.mar"]


def test_signed_archives_are_served_where_keys_are_asked_for(store: Path, tmp_path: Path) -> None:
    public = write_key_pair(tmp_path / "app" / "keys" / "ours.key", None)
    sign_archive(open_archive(store / "digits.mar"), read_private_key(public.with_suffix(".key"), None))
    base = tmp_path / "app" / "config.properties"
    base.write_text("vision_trusted_keys=keys/none.pub, keys/ours.pub\n")
    places = write_places(read_contract({}, store), base, tmp_path / "state")
    assert check_served("digits.mar", read_policy(places.config)).identity[0] == "digits"
