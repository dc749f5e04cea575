"""Images of this checkout, and keys."""

import os
import shutil
from pathlib import Path

import pytest

from mar_tools.archives.signing import write_key_pair

from .container_tools import ContainerTools, copy_checkout, require_tools


@pytest.fixture(scope="package")
def tools(tmp_path_factory: pytest.TempPathFactory) -> ContainerTools:
    require_tools()
    kept = os.environ.get("CONTAINER_FOLDER")  # images of an earlier run; building takes minutes
    return ContainerTools(Path(kept) if kept else tmp_path_factory.mktemp("containers"))


@pytest.fixture(scope="package")
def context(tools: ContainerTools, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("context")
    copy_checkout(folder)
    return folder


@pytest.fixture(scope="package")
def image(tools: ContainerTools, context: Path) -> str:
    return tools.build(context, "server")


@pytest.fixture(scope="package")
def baked_image(tools: ContainerTools, context: Path, archives: Path) -> str:
    (context / "model_store").mkdir(exist_ok=True)
    shutil.copy(archives / "digits.mar", context / "model_store")
    return tools.build(context, "baked")


@pytest.fixture(scope="package")
def cloud_image(tools: ContainerTools, context: Path) -> str:
    return tools.build(context, "cloud")


@pytest.fixture(scope="package")
def images(tools: ContainerTools, image: str, context: Path) -> dict[str, str]:
    """Both images, by the names that manifests have."""
    return {"vision-serving": image, "vision-front": tools.build(context, "front")}


@pytest.fixture(scope="package")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the keys of two who sign archives: release.key, other.key."""
    folder = tmp_path_factory.mktemp("keys")
    for name in ("release.key", "other.key"):
        write_key_pair(folder / name, None)
    return folder
