"""A new version of a model in the place of the running one, without a failed request, and back when it is no good.

TorchServe serves both for a while. The new one gets requests only when each of its workers has given the golden
prediction; the old one is taken out only when its requests are answered: TorchServe ends the workers of a version that
is unregistered at once, and never answers what waits for it.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mar_tools.archives.archive import Archive
from mar_tools.command_line import Announce
from mar_tools.serving.archive_choice import check_registered, register_checked
from mar_tools.serving.health import ask_each, check_version
from mar_tools.serving.logs import ServerLogs
from mar_tools.serving.request_counts import Counts, find_too_many_failures, read_counts
from mar_tools.serving.start_record import read_start_record
from mar_tools.serving.torchserve_api import ServerError, TorchServeClient
from mar_tools.waiting import wait_until
from vision_serving.worker.server_settings import state_folder

ANSWER_S = 60.0  # until every worker has answered one request
LAST_ANSWERS_S = 10.0  # the same, of a version that is no good
POLL_S = 0.5
LOG_S = 5.0  # for the reason of a failed load to be in the log
SETTLE_S = 0.3  # for a request that found the old version to be in its queue


@dataclass(frozen=True)
class Plan:
    """old: as TorchServe describes the default version."""

    archive: Archive
    old: Mapping[str, Any]
    workers: int

    @property
    def model(self) -> str:
        return self.archive.identity[0]

    @property
    def version(self) -> str:
        return self.archive.identity[1]

    @property
    def old_version(self) -> str:
        return str(self.old["modelVersion"])

    @property
    def section(self) -> dict[str, Any]:
        """Return what `models` in config.properties says of the new version."""
        workers = {"minWorkers": self.workers, "maxWorkers": max(self.workers, self.old["maxWorkers"])}
        batches = {key: self.old[key] for key in ("batchSize", "maxBatchDelay")}
        return {"defaultVersion": True, "marName": self.archive.path.name, **workers, **batches}

    @property
    def old_archive(self) -> str:
        return Path(self.old["modelUrl"]).name


@dataclass(frozen=True)
class Upgraded:
    """golden: of the new version. kept: why the old version is still served, None where it is not."""

    plan: Plan
    golden: str
    kept: str | None

    def as_document(self) -> dict[str, Any]:
        plan = self.plan
        old = f"{plan.old_version} is still served: {self.kept}" if self.kept else f"{plan.old_version} is taken out"
        status = (
            f"{plan.model} {plan.version} serves with {plan.workers} workers, golden prediction {self.golden}; {old}"
        )
        told = {"model": plan.model, "version": plan.version, "old_version": plan.old_version, "golden": self.golden}
        return {"status": status, **told, "kept": self.kept}


def plan_upgrade(client: TorchServeClient, config: Path, archive_name: str, workers: int | None) -> Plan:
    """Raises ConfigError for an archive that may not be served, ServerError where it does not fit what is served."""
    archive = check_registered(config, archive_name)
    model, version = archive.identity
    if model not in client.list_models():
        raise ServerError(f"{archive_name} holds {model} {version}, and no {model} is served; register it instead")
    old = client.describe_default(model)
    served = [entry["modelVersion"] for entry in client.describe(model)]
    if version in served:
        take_out = f"take that one out by manage_models.py unregister {model} --version {version}"
        advice = f"build it with another `version`, or {take_out}"
        raise ServerError(f"{archive_name} holds {model} {version}, which is served already; {advice}")
    return Plan(archive, old, workers or max(1, old["minWorkers"]))


class Upgrade:
    """One upgrade of a running server."""

    def __init__(self, client: TorchServeClient, config: Path, plan: Plan, announce: Announce) -> None:
        self._client, self._config, self._plan, self._announce = client, config.resolve(), plan, announce

    def run(self, watch_s: float, max_failed_share: float, keep_old: bool) -> Upgraded:
        """Raises ServerError when the new version is no good; then all is as it was before."""
        plan = self._plan
        before = self._count()
        self._announce(f"loading {plan.model} {plan.version}")
        self._register()
        try:
            golden = self._require_healthy()
            self._announce(f"{plan.model} {plan.version} gets the requests; watching it for {watch_s:g} s")
            start = self._count()
            self._client.set_default(plan.model, plan.version)
            self._watch(watch_s, max_failed_share, before, start)
            self._require_healthy()
        except BaseException as error:  # also when the user interrupts: nobody watches it any more
            self._roll_back()
            if isinstance(error, ServerError):
                raise ServerError(f"{error}; {plan.model} {plan.old_version} serves as before") from error
            raise
        kept = "--keep-old" if keep_old else self._retire(plan.old, start)
        return Upgraded(plan, golden, kept)

    def _register(self) -> None:
        """Raises ServerError with the reason of the worker. What did not load is taken out again."""
        plan = self._plan
        try:
            register_checked(self._client, plan.archive, plan.workers, plan.old["batchSize"], plan.old["maxBatchDelay"])
        except BaseException as error:  # also when the user interrupts
            if plan.version in [entry["modelVersion"] for entry in self._client.describe(plan.model)]:
                self._client.unregister(plan.model, plan.version)
            if not isinstance(error, ServerError):
                raise
            # What a worker said of the new version, in a log that TorchServe may be late with.
            reason = wait_until(lambda: self._logs().load_failure(plan.model, plan.version), LOG_S, POLL_S)
            why = f"{error}: {reason}" if reason else str(error)
            raise ServerError(f"{why}; {plan.model} {plan.old_version} serves as before") from error

    def _require_healthy(self) -> str:
        """Return what the golden prediction says. Raises ServerError when the version is not healthy."""
        model, properties = self._plan.model, self._config.read_text(encoding="utf-8")
        client = self._client.with_deadline(time.monotonic() + ANSWER_S)
        [entry] = client.describe(model, self._plan.version)
        health = check_version(client, model, entry, properties, self._logs())
        if not health.healthy:
            raise ServerError(str(health))
        return health.golden

    def _watch(self, watch_s: float, max_failed_share: float, before: Counts | None, start: Counts | None) -> None:
        """Raises ServerError as soon as too many answers fail, or a worker ends."""
        workers = self._pids()

        def find_problem() -> str | None:
            now = self._count()
            if before is not None and start is not None and now is not None:
                failures = find_too_many_failures(before, now.since(start), max_failed_share)
                if failures is not None:
                    return failures
            return None if self._pids() == workers else "a worker ended; see logs/model_log.log"

        problem = wait_until(find_problem, watch_s, POLL_S)
        if problem is not None:
            raise ServerError(f"{self._plan.model} {self._plan.version}: {problem}")

    def _retire(self, old: Mapping[str, Any], start: Counts | None) -> str | None:
        """Unregister the old version when its requests are answered; or why it stays."""
        plan, version = self._plan, str(old["modelVersion"])
        now = self._count()
        if start is not None and now is not None and now.since(start).requests.get((plan.model, version), 0) > 0:
            return f"requests still ask for it by /predictions/{plan.model}/{version}"
        self._announce(f"waiting for the last answers of {plan.model} {version}")
        if not self._has_answered(version, ANSWER_S):
            return f"its workers have not answered within {ANSWER_S:g} s"
        self._client.unregister(plan.model, version)
        return None

    def _has_answered(self, version: str, timeout_s: float) -> bool:
        """Wait until each worker answers what it took before the request that it is sent now."""
        time.sleep(SETTLE_S)
        client = self._client.with_deadline(time.monotonic() + timeout_s)
        [entry] = client.describe(self._plan.model, version)
        try:
            all_answered = ask_each(client, self._plan.model, version, {worker["pid"] for worker in entry["workers"]})
        except ServerError:
            return False
        return all_answered or bool(entry["jobQueueStatus"]["pendingRequests"] == 0)

    def _roll_back(self) -> None:
        plan = self._plan
        self._announce(f"rolling back to {plan.model} {plan.old_version}")
        self._client.set_default(plan.model, plan.old_version)
        self._has_answered(plan.version, LAST_ANSWERS_S)
        self._client.unregister(plan.model, plan.version)

    def _count(self) -> Counts | None:
        return read_counts(self._client.read_metrics())

    def _pids(self) -> set[int]:
        [entry] = self._client.describe(self._plan.model, self._plan.version)
        return {worker["pid"] for worker in entry["workers"]}

    def _logs(self) -> ServerLogs:
        return ServerLogs(state_folder(self._config) / "logs", read_start_record(self._config).log_sizes)
