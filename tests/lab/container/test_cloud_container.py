"""The image of a cloud, run by podman as SageMaker, Vertex AI and Azure ML run it, and asked as each of them asks."""

import http.client
import re
import shutil
import threading
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import cloud_contracts
import orjson
import pytest

from mar_tools.serving.ports import LOOPBACK, find_free_ports
from mar_tools.waiting import wait_until

from .container_tools import AS_THE_PAGE_SAYS, ContainerTools

SAGEMAKER_FOLDER, AZURE_FOLDER = "/opt/ml/model", "/var/azureml-app/azureml-models/digits/1"
WAIT_S, END_S = 60.0, 120.0


@dataclass(frozen=True)
class Platform:
    """What a platform runs the image with. port: that it asks. folder: where it puts archives, None: in the image."""

    speak: Callable[[str], None]
    folder: str | None = None
    port: int = 8080
    environment: dict[str, str] = field(default_factory=dict)
    words: tuple[str, ...] = ()
    user: str = "1000"
    rights: tuple[str, ...] = AS_THE_PAGE_SAYS


PLATFORMS = {
    "sagemaker": Platform(cloud_contracts.speak_sagemaker, SAGEMAKER_FOLDER, words=("serve",)),
    "sagemaker behind another container": Platform(
        cloud_contracts.speak_sagemaker, SAGEMAKER_FOLDER, 9871, {"SAGEMAKER_BIND_TO_PORT": "9871"}, ("serve",)
    ),
    "sagemaker as root with podman's rights": Platform(
        cloud_contracts.speak_sagemaker, SAGEMAKER_FOLDER, words=("serve",), user="0", rights=()
    ),
    "vertex ai": Platform(
        cloud_contracts.speak_vertex_ai, None, 7080, {"AIP_HTTP_PORT": "7080", **cloud_contracts.VERTEX}
    ),
    "azure ml": Platform(
        cloud_contracts.speak_azure_ml, f"{AZURE_FOLDER}/models", environment={"AZUREML_MODEL_DIR": AZURE_FOLDER}
    ),
}


@pytest.fixture(scope="module")
def with_archive(
    tools: ContainerTools, cloud_image: str, archives: Path, tmp_path_factory: pytest.TempPathFactory
) -> str:
    """The image that the page makes for a platform which brings no archive."""
    folder = tmp_path_factory.mktemp("derived")
    page = cloud_contracts.PAGE.read_text(encoding="utf-8")
    [lines] = re.findall(r"(?s)```dockerfile\n(.*?)```", page)
    (folder / "Containerfile").write_text(lines.replace("FROM vision-cloud", f"FROM {cloud_image}"))
    bring(archives / "digits.mar", folder / "model_store")
    return tools.build_file(folder / "Containerfile", folder, "localhost/vision-cloud-digits")


def bring(archive: Path, folder: Path) -> Path:
    """Copy an archive into a new folder that the user of the image may read."""
    folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    shutil.copyfile(archive, folder / archive.name)
    return folder


@contextmanager
def serving(
    tools: ContainerTools, image: str, platform: Platform, archive: Path, place: Path
) -> Iterator[tuple[str, str]]:
    """Yield the name of a container, and its address, when it is healthy."""
    [published] = find_free_ports(1)
    given = [f"--publish={LOOPBACK}:{published}:{platform.port}", f"--user={platform.user}:{platform.user}"]
    given += [f"--env={name}={value}" for name, value in platform.environment.items()]
    if platform.folder is not None:
        given.append(f"--volume={bring(archive, place)}:{platform.folder}:ro")
    with tools.running(image, *given, words=platform.words, rights=platform.rights) as name:
        url = f"http://{LOOPBACK}:{published}"
        assert cloud_contracts.wait_until_healthy(url), tools.podman("logs", name)[-3000:]
        yield name, url


@pytest.mark.parametrize("name", PLATFORMS)
def test_the_container_answers_as_the_platform_asks(
    tools: ContainerTools, cloud_image: str, with_archive: str, archives: Path, tmp_path: Path, name: str
) -> None:
    platform = PLATFORMS[name]
    image = cloud_image if platform.folder else with_archive
    with serving(tools, image, platform, archives / "digits.mar", tmp_path / "brought") as (container, url):
        assert tools.podman("exec", container, "id", "-u").strip() == platform.user
        platform.speak(url)
        assert cloud_contracts.find_open_routes(url) == []


def test_what_was_asked_before_sigterm_is_answered_and_all_ends_in_the_time_of_sagemaker(
    tools: ContainerTools, cloud_image: str, archives: Path, tmp_path: Path
) -> None:
    platform, picture = PLATFORMS["sagemaker"], cloud_contracts.SEVEN.read_bytes()
    with serving(tools, cloud_image, platform, archives / "digits.mar", tmp_path / "brought") as (name, url):
        under_way = begin(url, len(picture))
        under_way.send(picture[:100])
        stop = ("stop", "--time", str(int(cloud_contracts.SAGEMAKER_STOP_S)), name)
        stopping = threading.Thread(target=partial(tools.podman, *stop))
        stopping.start()
        assert wait_until(partial(is_refused, url), WAIT_S)
        under_way.send(picture[100:])
        answer = under_way.getresponse()
        assert (answer.status, orjson.loads(answer.read())["classes"][0]["label"]) == (200, "7")
        stopping.join()
        assert tools.state_of(name, "ExitCode") == "0", tools.podman("logs", name)[-3000:]


def begin(url: str, size: int) -> http.client.HTTPConnection:
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=WAIT_S)
    connection.putrequest("POST", "/invocations")
    connection.putheader("Content-Type", "image/png")
    connection.putheader("Content-Length", str(size))
    connection.endheaders()
    return connection


def is_refused(url: str) -> bool:
    try:
        begin(url, 1).close()
    except OSError:
        return True
    return False


def write_half(archive: Path, target: Path) -> None:
    content = archive.read_bytes()
    target.write_bytes(content[: len(content) // 2])


def write_without_weights(archive: Path, target: Path) -> None:
    """Write an archive of another, as it has no digests, whose worker cannot load its network."""
    with zipfile.ZipFile(archive) as ours, zipfile.ZipFile(target, "w") as packed:
        for name in ours.namelist():
            if "DIGESTS" not in name:
                packed.writestr(name, b"" if name == "model.bin" else ours.read(name))


@pytest.mark.parametrize(
    ("write", "reason"),
    [
        (write_half, r"digits\.mar: not a readable archive \(it is cut"),
        (write_without_weights, "error: model digits cannot load: OpenVINO cannot load model.xml"),
    ],
    ids=["half an archive", "no weights"],
)
def test_a_model_that_cannot_be_loaded_ends_the_container(
    tools: ContainerTools,
    cloud_image: str,
    archives: Path,
    tmp_path: Path,
    write: Callable[[Path, Path], None],
    reason: str,
) -> None:
    folder = tmp_path / "brought"
    folder.mkdir()
    write(archives / "digits.mar", folder / "digits.mar")
    with tools.running(cloud_image, f"--volume={folder}:{SAGEMAKER_FOLDER}:ro", words=("serve",)) as name:
        assert wait_until(lambda: tools.state_of(name, "Running") == "false", END_S, 1.0), tools.all_said(name)
        assert tools.state_of(name, "ExitCode") == "1"
        assert re.search(reason, tools.all_said(name)), tools.all_said(name)
