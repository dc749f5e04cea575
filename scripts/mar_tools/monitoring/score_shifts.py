"""How far the scores of a version's newest sampled predictions are from those of its verification.

In the background, as it takes long; and what is too old of the samples is removed meanwhile, whoever served it.
"""

import threading
import time
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily

from mar_tools.monitoring.model_facts import OF_VERSION, Version, folder_of
from vision_serving.errors import ConfigError
from vision_serving.worker.sample_files import list_files, tidy_samples
from vision_serving.worker.sample_settings import model_folder, read_sample_bounds, samples_folder
from vision_serving.worker.server_settings import read_properties, read_text

WINDOW_IMAGES = 1000
WINDOW = timedelta(days=7)
TIDY_S = 3600.0
NEVER = -float("inf")
SCORES = "scores"
State = tuple[tuple[str, int], ...]  # of the files with samples; and the archive


class ScoreShifts:
    """Of all versions that are served. `learn` runs in a thread of its own, `show` in any."""

    def __init__(self, config: Path) -> None:
        self._samples = samples_folder(config)
        self._bounds = read_sample_bounds(read_properties(read_text(config)))
        self._tidied_s = NEVER
        self._shifts: dict[Version, tuple[State, float | None]] = {}
        self._references: dict[Path, Any] = {}
        self._failure: Exception | None = None
        self._lock = threading.Lock()

    def learn(self, versions: Iterable[tuple[str, Mapping[str, Any]]]) -> None:
        """Look at the samples. What fails is told by the next `show`."""
        if not self._samples.is_dir():
            return
        failure: Exception | None = None
        try:
            if time.monotonic() - self._tidied_s >= TIDY_S:
                self._tidied_s = time.monotonic()
                tidy_samples(self._samples, self._bounds)
            self._measure({(model, entry["modelVersion"]): entry for model, entry in versions})
        except Exception as error:  # of any kind: it must not end the thread, which learns more than this
            failure = error
        self._failure = failure

    def show(self) -> list[Metric]:
        """Return the distances; none of a version with too few samples. Raises what the last look ended with."""
        shift = GaugeMetricFamily(
            "vision_score_shift",
            "How far the scores of sampled predictions are from those of the verification: 0 the same, 1 nothing in "
            "common.",
            labels=OF_VERSION,
        )
        if self._failure is not None:
            raise self._failure
        with self._lock:
            for version, (_, distance) in sorted(self._shifts.items()):
                if distance is not None:
                    shift.add_metric(version, distance)
        return [shift]

    def _measure(self, found: Mapping[Version, Mapping[str, Any]]) -> None:
        with self._lock:
            self._shifts = {version: known for version, known in self._shifts.items() if version in found}
        for version, entry in found.items():
            folder, archive = model_folder(self._samples, version[0]), folder_of(entry)
            files = {path.name: path.stat().st_size for path in list_files(folder)}
            state = (*files.items(), (str(archive), 0))
            if archive is None or self._shifts.get(version, ((), None))[0] == state:
                continue
            distance = self._compare(folder, version[1], archive) if files else None
            with self._lock:
                self._shifts[version] = state, distance

    def _compare(self, folder: Path, version: str, archive: Path) -> float | None:
        """Return the distance, None where too few samples or an older archive leave it open."""
        from mar_tools.drift.comparing import TOO_FEW, compare_part  # 40 MB, for those who sample
        from mar_tools.drift.reference import read_reference
        from mar_tools.drift.samples import read_samples

        if archive not in self._references:
            try:
                self._references[archive] = read_reference(archive, f"{folder.name} {version}")
            except ConfigError as error:
                print(error, flush=True)
                self._references[archive] = None
        reference = self._references[archive]
        if reference is None or SCORES not in reference.distributions.parts:
            return None
        since = datetime.now(timezone.utc) - WINDOW
        samples = read_samples(folder, version, reference.all_classes, since, WINDOW_IMAGES)
        found = samples.distributions.parts.get(SCORES, {})
        compared = compare_part(SCORES, reference.distributions.parts[SCORES], found)
        return None if compared.verdict == TOO_FEW else compared.distance
