"""A TorchServe of its own, on free ports and in a temporary folder; all of it gone at the end."""

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from mar_tools.serving.archive_choice import link_archives
from mar_tools.serving.config_file import with_values
from mar_tools.serving.metrics_exporter import METRICS_KEY
from mar_tools.serving.ports import LOOPBACK, free_addresses
from mar_tools.serving.server import Server
from vision_serving.worker.server_settings import STATE_KEY

START_TIMEOUT_S = 300.0


@contextmanager
def temporary_server(archives: Sequence[Path], properties: str, log_settings: Path | None) -> Iterator[Server]:
    """Serve these archives; stop at the end.

    properties: the text of a config.properties; its addresses and folders are replaced. log_settings: the log4j2.xml
    that `vmargs` names. Raises ServerError where a model does not come up.
    """
    with tempfile.TemporaryDirectory(prefix="server-") as temporary:
        folder = Path(temporary)
        (folder / "model_store").mkdir()
        link_archives(archives, folder / "model_store")
        if log_settings is not None:
            shutil.copy(log_settings, folder)
        config = folder / "config.properties"
        config.write_text(with_values(properties, own_places()), encoding="utf-8")
        server = Server(config)
        server.start(START_TIMEOUT_S, lambda step: None)
        try:
            yield server
        finally:
            server.stop()


def own_places() -> dict[str, str]:
    """Return lines of config.properties: addresses that nobody has, and folders beside the file."""
    return {
        **free_addresses(),
        "grpc_inference_address": LOOPBACK,
        "grpc_management_address": LOOPBACK,
        "model_store": "model_store",
        "workflow_store": "workflow_store",
        STATE_KEY: "",
        METRICS_KEY: "0",
    }
