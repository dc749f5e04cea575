"""What is behind the commands of scripts/. Outside the environment, an import of it names the command that helps."""

import os.path
import sys
from importlib.util import find_spec
from pathlib import Path

if find_spec("vision_serving") is None:
    _environment = Path(__file__).resolve().parents[2] / ".venv"
    _activate = f"source {os.path.relpath(_environment / 'bin' / 'activate')}"
    _is_active = Path(sys.prefix) == _environment
    _command = _activate if _environment.is_dir() and not _is_active else "bash scripts/quickstart.sh"
    sys.exit(f"error: this project is not installed for {sys.executable}; run `{_command}` first")
