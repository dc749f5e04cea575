"""A TorchServe of its own, on free ports, that serves one archive with the settings of a trial; gone at the end."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mar_tools.benchmarking.served import find_served_models
from mar_tools.benchmarking.targets import Target
from mar_tools.ports import LOOPBACK, free_addresses
from mar_tools.properties_file import with_model, with_values
from mar_tools.server import Server
from mar_tools.tuning.deployment import Candidate
from mar_tools.tuning.space import Settings

START_TIMEOUT_S = 300.0
WAITING_REQUESTS = 1000  # an open loop shows by its latencies, not by refusals, that a server does not keep up


@contextmanager
def serve_trial(candidate: Candidate, settings: Settings, log_settings: Path | None) -> Iterator[Target]:
    """log_settings: the log4j2.xml that `vmargs` names. Raises ServerError where the model does not come up."""
    with tempfile.TemporaryDirectory(prefix="tuning-") as temporary:
        folder = Path(temporary)
        (folder / "model_store").mkdir()
        (folder / "model_store" / candidate.archive.name).symlink_to(candidate.archive.resolve())
        if log_settings is not None:
            shutil.copy(log_settings, folder)
        config = folder / "config.properties"
        config.write_text(trial_properties(candidate, settings), encoding="utf-8")
        server = Server(config)
        server.start(START_TIMEOUT_S, lambda step: None)
        try:
            yield find_served_models(server, [candidate.name])[0].target
        finally:
            server.stop()


def trial_properties(candidate: Candidate, settings: Settings) -> str:
    """Those of the candidate, for this archive alone, elsewhere, and with these settings."""
    own = {
        **free_addresses(),
        "model_store": "model_store",
        "workflow_store": "workflow_store",
        "load_models": candidate.archive.name,
        "job_queue_size": str(WAITING_REQUESTS),
        "models": "{}",
        "grpc_inference_address": LOOPBACK,
        "grpc_management_address": LOOPBACK,
    }
    model = {"defaultVersion": True, "marName": candidate.archive.name, **settings.as_properties()}
    return with_model(with_values(candidate.properties, own), candidate.name, candidate.version, model)
