"""The client is a package of its own: it needs nothing of the server, and little else."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

CLIENT = Path(__file__).resolve().parents[2] / "client"
SOURCES = sorted((CLIENT / "vision_client").glob("*.py"))
MAY_IMPORT = {"vision_client", "requests", "urllib3", "rich"}  # beside Python itself; as client/pyproject.toml says
# What a module takes from a process that has imported it, or imports when it is asked for more than the package does.
OF_THE_CALLER = {"tracing": {"opentelemetry"}, "pictures": {"PIL"}, "tables": {"pandas"}, "results": {"pandas"}}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_a_module_imports_only_what_the_package_asks_for(path: Path) -> None:
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)}
    imported = {name.partition(".")[0] for name in names} - set(sys.stdlib_module_names)
    assert imported <= MAY_IMPORT | OF_THE_CALLER.get(path.stem, set())


def test_nothing_heavy_is_imported() -> None:
    heavy = {"torch", "numpy", "PIL", "pandas", "vision_serving"}
    code = f"import sys, vision_client; print(sorted({heavy} & set(sys.modules)))"
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert finished.stdout.strip() == "[]"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_a_module_fits_300_lines(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 300
