"""Register, scale, versions, tokens: through our commands and client."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import RunHere

from .conftest import Service, build_digits
from .test_requests import OCTETS, best_label

Manage = Callable[..., str]


@pytest.fixture
def manage(run_here: RunHere, service: Service) -> Manage:
    """A command of manage_models.py that succeeds: what it printed."""

    def manage(*arguments: str) -> str:
        finished = run_here("manage_models.py", "--config", service.server.config, *arguments)
        assert finished.returncode == 0, finished.stderr
        return finished.stdout.strip()

    return manage


@pytest.fixture(scope="module")
def second_version(service: Service, archives: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The digits classifier as version 2.0, in the store under a name of its own."""
    archive = build_digits(tmp_path_factory.mktemp("second") / "example", version="2.0")
    shutil.copy(archive, service.model_store / "digits_2.mar")
    return "digits_2.mar"


def test_list_names_the_models(manage: Manage) -> None:
    assert set(manage("list").splitlines()) >= {"digits", "digits_detection"}


def test_describe_gives_what_the_server_says(manage: Manage) -> None:
    description = json.loads(manage("describe", "digits", "--json"))
    assert description[0]["batchSize"] == 8


def test_scale_changes_the_number_of_workers(manage: Manage, service: Service, seven: bytes) -> None:
    manage("scale", "digits", "--workers", "2")
    assert len(service.worker_pids("digits")) == 2
    assert service.post("digits", seven, OCTETS).status_code == 200
    manage("scale", "digits", "--workers", "1")
    assert len(service.worker_pids("digits")) == 1


def test_a_second_version_is_registered_made_default_and_unregistered(
    manage: Manage, service: Service, seven: bytes, second_version: str
) -> None:
    manage("register", second_version)
    (added,) = (entry for entry in json.loads(manage("describe", "digits", "--version", "2.0", "--json")))
    served = (added["minWorkers"], added["batchSize"], added["maxBatchDelay"])
    assert served == (1, 8, 5), "what nobody named: the workers of config.properties, batches as a build would write"
    new = service.request("PUT", "/predictions/digits/2.0", data=seven)
    old = service.request("PUT", "/predictions/digits", data=seven)
    assert (new.headers["X-Model-Version"], new.headers["X-Backend"]) == ("2.0", "eager")
    assert old.headers["X-Model-Version"] == "1.0"
    assert best_label(new.json()) == best_label(old.json()) == "7"

    manage("set-default", "digits", "2.0")
    assert service.request("PUT", "/predictions/digits", data=seven).headers["X-Model-Version"] == "2.0"
    manage("set-default", "digits", "1.0")
    manage("unregister", "digits", "--version", "2.0")
    assert service.request("PUT", "/predictions/digits/2.0", data=seven).status_code == 404


def test_a_renewed_token_works_and_the_old_one_does_not(manage: Manage, service: Service, seven: bytes) -> None:
    old = service.token
    new = manage("token", "inference", "--renew")
    assert new != old
    assert service.post("digits", seven, {**OCTETS, "Authorization": f"Bearer {new}"}).status_code == 200
    assert service.post("digits", seven, {**OCTETS, "Authorization": f"Bearer {old}"}).status_code == 400


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("register", "nothing.mar"), "nothing.mar"),
        (("register", "https://example.org/a.mar"), "url"),
        (("unregister", "nothing"), "nothing"),
        (("scale", "nothing", "--workers", "1"), "nothing"),
    ],
    ids=["missing archive", "archive by URL", "unregister unknown", "scale unknown"],
)
def test_a_refusal_is_one_line_and_exit_status_1(
    run_here: RunHere, service: Service, arguments: tuple[str, ...], message: str
) -> None:
    finished = run_here("manage_models.py", "--config", service.server.config, *arguments)
    assert finished.returncode == 1
    assert finished.stderr.startswith("error: ")
    assert len(finished.stderr.splitlines()) == 1
    assert message.lower() in finished.stderr.lower()
