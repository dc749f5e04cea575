"""Run the frontend: its command, its environment, and where its output goes."""

import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from mar_tools.serving.java import find_java_home
from mar_tools.serving.logs import log_options
from mar_tools.serving.metrics_exporter import prepare_metrics
from mar_tools.serving.processes import DRAIN_NAME
from vision_serving.cores import WAIT_POLICY
from vision_serving.worker.draining import DRAIN_FILE
from vision_serving.worker.server_settings import read_properties, read_text, state_folder

LOG_SETTINGS = re.compile(r"-Dlog4j\.configurationFile=(\S+)")


def launch(config: Path, temporary: Path, archives: Sequence[str], to_stdout: bool) -> None:
    """Run TorchServe with these archives. It goes on when this process has ended.

    to_stdout: what it says goes to our own standard output and error, and not to logs/console.log.
    """
    values = read_properties(read_text(config))
    own = {"TMPDIR": str(temporary), "TEMP": str(temporary), DRAIN_FILE: str(temporary / DRAIN_NAME)}
    own |= {"JAVA_HOME": str(find_java_home()), **log_options(values, to_stdout)}
    own |= prepare_metrics(config, temporary)
    given = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    console = state_folder(config) / "logs" / "console.log"
    console.touch(mode=0o600)
    with console.open("wb") as file:
        output = None if to_stdout else file
        subprocess.run(
            _command(config, values, archives),
            cwd=state_folder(config),
            env=WAIT_POLICY | given | own,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            check=True,
            start_new_session=True,  # Ctrl-C in this terminal must not reach the server
            umask=0o077,  # TorchServe makes key_file.json first, and takes it from other users afterwards
        )


def _command(config: Path, values: Mapping[str, str], archives: Sequence[str]) -> list[str]:
    """Return the command that runs TorchServe, in the folder that it writes to, which may not be its settings'."""
    folder = config.parent
    command = [sys.executable, "-m", "ts.model_server", "--start", "--ncs", "--ts-config", str(config)]
    for key in ("model_store", "workflow_store"):
        if key in values:
            store = folder / values[key]
            store.mkdir(parents=True, exist_ok=True)
            command += [f"--{key.replace('_', '-')}", str(store)]
    if state_folder(config) != folder and (found := LOG_SETTINGS.search(values.get("vmargs", ""))):
        command += ["--log-config", str(folder / found[1])]
    return [*command, "--models", *(archives or [""])]  # "": none; TorchServe must not go by its own `load_models`
