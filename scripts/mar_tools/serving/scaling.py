"""Another number of workers of a model, without a failed request.

TorchServe ends workers that are too many at once, with what they have in hand. But it hands out the job of describing a
model (`GET /models/{model}?customized=true`) as a batch of its own: so a worker that is to go is asked, by a file, to
keep still with the next such job (`vision_serving.worker.draining`), and is ended with no prediction in hand.
"""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from mar_tools.serving.model_status import READY
from mar_tools.serving.processes import DRAIN_NAME, find_temporary
from mar_tools.serving.torchserve_api import ServerError, TorchServeClient
from mar_tools.waiting import wait_until
from vision_serving.worker.draining import leaving_files

# Until all that must go keep still. One that hangs never does, nor one of another's archive, or of ours from before.
PATIENCE_S = 5.0
POLL_S = 0.02


def scale(client: TorchServeClient, config: Path, model: str, version: str | None, workers: int) -> Any:
    """Scale as `client.scale` does. Raises ServerError as it does."""
    entry = client.describe(model, version)[0] if version else client.describe_default(model)
    temporary = None
    with suppress(PermissionError):  # a server that another user started
        temporary = find_temporary(config)
    if temporary is None:  # or the plain `torchserve` command, whose workers hear of no file
        return client.scale(model, version, workers)
    # In the order of their age: TorchServe ends the youngest.
    leaving = [worker["pid"] for worker in entry["workers"][workers:] if worker["status"] == READY]
    with _keeping_still(client, temporary / DRAIN_NAME, model, entry["modelVersion"], leaving):
        return client.scale(model, version, workers)


@contextmanager
def _keeping_still(
    client: TorchServeClient, drain: Path, model: str, version: str, pids: Sequence[int]
) -> Iterator[None]:
    """Keep these workers without a prediction in hand, where they came to that in time."""
    files = [leaving_files(drain, pid) for pid in pids]
    asking = client.with_deadline(time.monotonic() + PATIENCE_S)

    def all_still() -> bool:
        return not any(asked.exists() for asked, _ in files)

    def ask() -> bool:
        """Return the one answer that does not come: that of a worker that keeps still."""
        if not all_still():  # by now: a description more would only keep a worker from pictures
            with suppress(ServerError, ValueError, LookupError):  # a full queue; another's archive; it was ended
                asking.describe_card(model, version)
        return all_still()

    try:
        with suppress(OSError):  # the disk is full, or the folder was cleaned away
            for asked, _ in files:
                asked.touch(mode=0o600)
        for _ in files:
            threading.Thread(target=wait_until, args=(ask, PATIENCE_S, POLL_S), daemon=True).start()
        wait_until(all_still, PATIENCE_S, POLL_S)
        yield
    finally:
        for file in (file for both in files for file in both):
            with suppress(OSError):
                file.unlink()
