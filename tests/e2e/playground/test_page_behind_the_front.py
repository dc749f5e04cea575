"""The same page at the front's `/`: its files are for everybody, its models for clients with a key."""

from collections.abc import Callable, Iterator

import pytest

from e2e.conftest import Service
from e2e.front.conftest import Running, nginx, run_front
from mar_tools.playground.assets import POLICY

from .conftest import CLASSIFIER, DETECTOR, SCENE, SEVEN, Shown

__all__ = ["nginx"]  # a fixture
PREFIX = "/vision"
NO_KEY = {"X-Api-Key": ""}


@pytest.fixture(scope="module")
def front(nginx: None, service: Service, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    config = service.folder / "config.properties"
    with run_front(tmp_path_factory.mktemp("front"), config, playground=True, path_prefix=PREFIX) as front:
        yield front


@pytest.fixture
def shown(front: Running, open_page: Callable[..., Shown]) -> Shown:
    return open_page(f"{front.front.url}{PREFIX}/", ignore_https_errors=True)


def test_without_a_key_the_page_asks_for_one_and_with_it_shows_boxes_and_classes(shown: Shown, front: Running) -> None:
    assert shown.page.locator("#problem:visible").count() == 0
    shown.page.fill("#key", "wrong")
    shown.page.click("#key-form button")
    shown.page.locator("#problem", has_text="401 UnauthorizedError").wait_for()
    shown.page.fill("#key", front.key)
    shown.page.click("#key-form button")
    shown.choose(DETECTOR)
    shown.give(SCENE.read_bytes(), "scene.jpg")
    assert len(shown.rows()) == shown.page.locator(".overlay .item").count() > 0
    shown.choose(CLASSIFIER)
    shown.give(SEVEN.read_bytes(), "seven.png")
    assert shown.rows()[0][0] == "7"
    code = shown.page.locator(".code").text_content() or ""
    assert f"{front.front.url}{PREFIX}/predictions/digits" in code
    assert front.key not in shown.page.content()
    assert shown.page.context.storage_state() == {"cookies": [], "origins": []}


def test_the_routes_are_shown_there(front: Running, open_page: Callable[..., Shown]) -> None:
    shown = open_page(f"{front.front.url}{PREFIX}/docs", ignore_https_errors=True)
    shown.page.locator(".route").first.wait_for()
    assert shown.complaints == []


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_pages_have_the_policy(path: str, front: Running) -> None:
    answer = front.request("GET", PREFIX + path, NO_KEY)
    assert answer.headers["Content-Security-Policy"] == POLICY
    assert answer.headers["Content-Type"].startswith("text/html")


def test_models_and_cards_need_a_key_and_tell_nothing_of_the_machine(front: Running) -> None:
    for path in ("/playground/models", "/playground/models/digits", "/playground/models/digits/1.0"):
        assert front.request("GET", PREFIX + path, NO_KEY).status_code == 401
    listed = front.request("GET", f"{PREFIX}/playground/models").json()["models"]
    assert {"name": "digits", "default": "1.0", "versions": ["1.0"]} in listed
    card = front.request("GET", f"{PREFIX}/playground/models/digits/1.0").json()
    assert card["task"] == "classification"
    assert not {"files", "versions"} & set(card)
    assert front.request("GET", f"{PREFIX}/playground/models/nothing").status_code == 404


@pytest.mark.parametrize(
    "path", ["/playground/../front.yaml", "/playground/index.html", "/playground/samples/notes/x.jpg", "/playground/"]
)
def test_nothing_else_is_a_file(path: str, front: Running) -> None:
    assert front.request("GET", PREFIX + path, NO_KEY).status_code == 404


def test_pages_are_only_read(front: Running) -> None:
    assert front.request("POST", f"{PREFIX}/", NO_KEY).status_code == 405


def test_as_shipped_there_is_no_page(nginx: None, service: Service, tmp_path_factory: pytest.TempPathFactory) -> None:
    with run_front(tmp_path_factory.mktemp("front"), service.folder / "config.properties") as front:
        for path in ("/", "/docs", "/playground/app.js", "/playground/models"):
            assert front.request("GET", path).status_code == 404
