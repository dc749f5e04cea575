"""TorchServe with a stock handler, out of the box (--mode default) or at its best (--mode tuned).

    python build_archive.py ../../../exports/resnet50/eager-fp32 archives/model.mar
    python serve.py --mode tuned --export ../../../exports/resnet50/eager-fp32 --workers 1 --threads 2 --batch-size 8

`default` takes none of the flags for workers, threads and batches: a worker per core, no batches, all cores as threads
of each, a log line for each request are TorchServe's own choice.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from lab.peers.peer_arguments import ServerArguments, parse_server_arguments
from mar_tools.command_line import ROOT
from mar_tools.serving.java import find_java_home
from mar_tools.serving.ports import free_addresses
from vision_serving.cores import WAIT_POLICY

ARCHIVE = Path(__file__).resolve().parent / "archives" / "model.mar"


def new_properties(arguments: ServerArguments) -> dict[str, str]:
    """Return the lines of `config.properties`."""
    return {
        **free_addresses(),
        "inference_address": f"http://{arguments.host}:{arguments.port}",
        "model_store": str(ARCHIVE.parent),
        "load_models": ARCHIVE.name,
        "disable_token_authorization": "true",
        **(new_tuning(arguments) if arguments.mode == "tuned" else {}),
    }


def new_tuning(arguments: ServerArguments) -> dict[str, str]:
    """Return batches and workers as asked for, and none of the costs per request that TorchServe's
    users can turn off.
    """
    model = {
        "defaultVersion": True,
        "marName": ARCHIVE.name,
        "minWorkers": arguments.workers,
        "maxWorkers": arguments.workers,
        "batchSize": arguments.batch_size,
        "maxBatchDelay": max(1, arguments.batch_delay_ms),  # 0 would cap batches at 2
    }
    return {
        "models": json.dumps({ARCHIVE.stem: {"1.0": model}}),
        "metrics_mode": "prometheus",
        "disable_system_metrics": "true",
        "vmargs": f"-Dlog4j.configurationFile={ROOT / 'log4j2.xml'} -Xmx1g",
    }


def new_environment(arguments: ServerArguments, folder: str) -> dict[str, str]:
    """Return the environment. Out of the box nothing tells OpenMP its threads. folder: for logs and sockets."""
    removed = {"PYTHONPATH", "TS_CONFIG_FILE", "OMP_NUM_THREADS"}
    removed |= WAIT_POLICY.keys() if arguments.mode == "default" else set()
    kept = {key: value for key, value in os.environ.items() if key not in removed}
    threads = {"OMP_NUM_THREADS": str(arguments.threads)} if arguments.mode == "tuned" else {}
    folders = dict.fromkeys(("TMPDIR", "TEMP", "LOG_LOCATION", "METRICS_LOCATION"), folder)
    return {**kept, **threads, **folders, "JAVA_HOME": str(find_java_home())}


def main(arguments: ServerArguments) -> None:
    if not ARCHIVE.is_file():
        sys.exit(f"error: {ARCHIVE}: no such archive; run build_archive.py first")
    with tempfile.TemporaryDirectory(prefix="stock-") as folder:
        lines = [f"{key}={value}" for key, value in new_properties(arguments).items()]
        config = Path(folder, "config.properties")
        config.write_text("\n".join(lines) + "\n", encoding="utf-8")
        command = [sys.executable, "-m", "ts.model_server", "--start", "--foreground", "--ncs"]
        environment = new_environment(arguments, folder)
        subprocess.run([*command, "--ts-config", str(config)], cwd=folder, env=environment, check=True)


if __name__ == "__main__":
    main(parse_server_arguments(__doc__, modes=("default", "tuned")))
