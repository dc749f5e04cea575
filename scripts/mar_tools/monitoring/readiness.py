"""Whether a server should get requests, and whether it should be started again, for probes that ask over HTTP.

Both follow the golden predictions that are asked for in the background. So a probe waits for no worker, and a server
that is busy fails none.
"""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mar_tools.monitoring.model_facts import ModelFacts
from mar_tools.monitoring.server_state import read_versions
from mar_tools.serving.model_status import READY
from mar_tools.serving.start_record import read_start_record
from mar_tools.serving.torchserve_api import ServerError, TorchServeClient

READY_PATH, LIVE_PATH = "/ready", "/live"
PATIENCE_S = 3.0  # for the management API
WRONG_TIMES = 3  # golden predictions in a row, a minute apart as shipped: no fault of a moment
OTHER = "a worker gives another answer than the golden prediction"


class Readiness:
    """Of the server of a config.properties. asks_golden: whether its golden predictions are asked for."""

    def __init__(
        self,
        config: Path,
        client: TorchServeClient,
        facts: ModelFacts,
        is_draining: Callable[[], bool],
        asks_golden: bool,
    ) -> None:
        self._config, self._client, self._facts = config, client, facts
        self._is_draining, self._asks_golden = is_draining, asks_golden

    def find_obstacles(self) -> list[str]:
        """Return why the server should get no requests now; empty where it should."""
        if self._is_draining():
            return ["the server is about to stop"]
        try:
            versions = read_versions(self._client.with_deadline(time.monotonic() + PATIENCE_S))
        except ServerError as error:
            return [f"TorchServe does not answer: {error}"]
        found = [f"{name} is not served: {why}" for name, why in read_start_record(self._config).left_out.items()]
        found += [
            f"{model} {entry['modelVersion']}: {why}" for model, entry in versions if (why := self._judge(model, entry))
        ]
        return found if versions else [*found, "no model is served"]

    def _judge(self, model: str, entry: Mapping[str, Any]) -> str | None:
        """Return what is wrong with a version. One worker is enough, where another is being replaced."""
        if not any(worker["status"] == READY for worker in entry["workers"]):
            return "no worker is ready"
        if not self._asks_golden:
            return None
        fact = self._facts.find((model, entry["modelVersion"]))
        if fact is None or fact.is_open:
            return "its golden prediction was not given yet"
        return OTHER if fact.right == 0 else None

    def find_lasting_faults(self) -> list[str]:
        """Return why the server should be started again: a model computes something else, again and again.

        A frontend that hangs or has ended is none of it: `run` and `watch` find that by themselves.
        """
        return [
            f"{model} {version}: {OTHER}, {WRONG_TIMES} times in a row"
            for model, version in self._facts.list_wrong(WRONG_TIMES)
        ]
