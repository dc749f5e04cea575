"""What is learned of each version in the background, because it takes long: its archive, and its golden prediction."""

import hashlib
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil
from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from mar_tools.serving.health import check_golden
from mar_tools.serving.model_status import READY
from mar_tools.serving.torchserve_api import ServerError, TorchServeClient
from vision_serving.config import read_handler_config
from vision_serving.errors import ConfigError

PATIENCE_S = 20.0  # for all workers of a version
RESULTS = {"right": "right", "wrong": "wrong", "not checked": "not_checked"}
LATE = "late"
OF_VERSION = ("model", "version")
Version = tuple[str, str]


@dataclass
class Fact:
    """What is known of a version. folder: of its archive, unpacked. info: None where that could not be read.

    wrong_in_a_row: golden predictions of which one worker or more gave another, since the last right ones.
    """

    folder: Path | None
    info: tuple[str, str, str] | None
    results: dict[str, int] = field(default_factory=lambda: dict.fromkeys((*RESULTS.values(), LATE), 0))
    right: float | None = None
    wrong_in_a_row: int = 0

    @property
    def is_open(self) -> bool:
        """Return whether nothing is known yet of its golden prediction."""
        return self.right is None and not self.results["not_checked"]


class ModelFacts:
    """Of all versions that are served now. `learn` runs in a thread of its own, `show` in any."""

    def __init__(self, client: TorchServeClient, model_store: Path, is_draining: Callable[[], bool]) -> None:
        self._client, self._model_store, self._is_draining = client, model_store, is_draining
        self._facts: dict[Version, Fact] = {}
        self._lock = threading.Lock()

    def learn(self, versions: Iterable[tuple[str, Mapping[str, Any]]], ask_all: bool, ask_new: bool) -> None:
        """Read the archives that are new. Ask versions that are ready for their golden predictions: all, or new ones.

        A new one is a version of which nothing is known yet.
        """
        found: dict[Version, Mapping[str, Any]] = {(model, entry["modelVersion"]): entry for model, entry in versions}
        with self._lock:
            self._facts = {version: fact for version, fact in self._facts.items() if version in found}
        for version, entry in found.items():
            folder, fact = folder_of(entry), self._facts.get(version)
            if fact is None or folder not in (None, fact.folder):  # TorchServe makes one for each registration
                fact = Fact(folder, None if folder is None else self._read_archive(folder, entry["modelUrl"]))
            with self._lock:
                self._facts[version] = fact
            asked = ask_all or (ask_new and fact.is_open)
            if asked and _is_ready(entry) and not self._is_draining():
                self._ask(version[0], entry, fact)

    def _read_archive(self, folder: Path, name: str) -> tuple[str, str, str] | None:
        """Return backend, precision and SHA-256 of an archive, None where it is another's or no longer there."""
        try:
            config = read_handler_config(folder / "model-config.yaml")
            with (self._model_store / Path(name).name).open("rb") as file:
                digest = hashlib.sha256()
                while piece := file.read(1 << 20):
                    digest.update(piece)
        except (OSError, ConfigError):
            return None
        return config.backend, config.precision, digest.hexdigest()

    def _ask(self, model: str, entry: Mapping[str, Any], fact: Fact) -> None:
        try:
            verdict, _ = check_golden(self._client.with_deadline(time.monotonic() + PATIENCE_S), model, entry)
            result = RESULTS[verdict]
        except ServerError:  # no answer in time: nothing is known of what it would say
            result = LATE
        except ConfigError:  # its golden prediction cannot be read
            result = "wrong"
        with self._lock:
            fact.results[result] += 1
            if result != LATE:
                fact.right = None if result == "not_checked" else float(result == "right")
                fact.wrong_in_a_row = fact.wrong_in_a_row + 1 if result == "wrong" else 0

    def find(self, version: Version) -> Fact | None:
        """Return a copy of what is known of a version, None where it was not seen yet."""
        with self._lock:
            fact = self._facts.get(version)
            return None if fact is None else replace(fact, results=dict(fact.results))

    def list_wrong(self, times: int) -> list[Version]:
        """Return the versions that gave other than golden predictions, that often in a row."""
        with self._lock:
            return sorted(version for version, fact in self._facts.items() if fact.wrong_in_a_row >= times)

    def show(self) -> list[Metric]:
        info = GaugeMetricFamily(
            "vision_model_info",
            "1 for each version, with what its archive is.",
            labels=(*OF_VERSION, "backend", "precision", "archive_sha256"),
        )
        right = GaugeMetricFamily(
            "vision_golden_prediction_right", "1 where every worker gave it, 0 where one did not.", labels=OF_VERSION
        )
        asked = CounterMetricFamily(
            "vision_golden_predictions", "Golden predictions, by what came of them.", labels=(*OF_VERSION, "result")
        )
        with self._lock:
            for version, fact in sorted(self._facts.items()):
                if fact.info is not None:
                    info.add_metric((*version, *fact.info), 1.0)
                if fact.right is not None:
                    right.add_metric(version, fact.right)
                for result, count in fact.results.items():
                    asked.add_metric((*version, result), count)
        return [info, right, asked]


def _is_ready(entry: Mapping[str, Any]) -> bool:
    return bool(entry["workers"]) and all(worker["status"] == READY for worker in entry["workers"])


def folder_of(entry: Mapping[str, Any]) -> Path | None:
    """Return the folder that holds the archive unpacked: that in which its workers run."""
    for worker in entry["workers"]:
        try:
            return Path(psutil.Process(worker["pid"]).cwd())
        except (psutil.Error, ValueError):  # just replaced, being started, or another user's
            continue
    return None
