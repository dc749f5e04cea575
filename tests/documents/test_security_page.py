"""SECURITY.md names tests that there are, and versions that TorchServe's jar has."""

import re
import zipfile
from importlib.metadata import distribution
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
TESTS = re.findall(r"`(tests/[\w/]+\.py)?::(test_\w+)`", PAGE)
NETTY = re.compile(r"^netty-codec-http\.version=(.*)$", re.MULTILINE)


@pytest.mark.parametrize(("file", "test"), TESTS, ids=[test for _, test in TESTS])
def test_what_shows_a_defence_is_there(file: str, test: str) -> None:
    source = (ROOT / (file or "tests/e2e/test_access.py")).read_text(encoding="utf-8")
    assert f"def {test}(" in source


def test_the_versions_of_the_jar_are_on_the_page() -> None:
    with zipfile.ZipFile(str(distribution("torchserve").locate_file("ts/frontend/model-server.jar"))) as jar:
        [netty] = NETTY.findall(jar.read("META-INF/io.netty.versions.properties").decode())
        grpc = jar.read("io/grpc/internal/GrpcUtil.class")
        gson = jar.read("com/google/gson/internal/GsonBuildConfig.class")
    assert f"Netty {netty} " in PAGE
    for name, content in (("grpc-java", grpc), ("Gson", gson)):
        [version] = re.findall(rf"{name} ([\d.]+\d)", PAGE)
        assert version.encode() in content
