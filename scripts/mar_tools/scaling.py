"""Another number of workers of a model, without a failed request.

TorchServe ends workers that are too many at once, with what they have in hand. But it hands out the job of describing a
model (`GET /models/{model}?customized=true`) as a batch of its own: so a worker that is to go is told, by a file, to
hold still with the next such job (`vision_serving.draining`), and is ended with nothing else in hand.
"""

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from mar_tools.model_status import READY
from mar_tools.server_processes import drain_file
from mar_tools.torchserve_api import ServerError, TorchServeClient
from vision_serving.draining import leaving_file

PATIENCE_S = 5.0  # until all that shall go hold still; one that hangs, or is of another's archive, never does
POLL_S = 0.02


def scale(client: TorchServeClient, config: Path, model: str, version: str | None, workers: int) -> Any:
    """As `client.scale`. Raises ServerError as it does."""
    entry = client.describe(model, version)[0] if version else client.describe_default(model)
    # In the order of their age: TorchServe ends the youngest.
    leaving = [worker["pid"] for worker in entry["workers"][workers:] if worker["status"] == READY]
    with _held_still(client, drain_file(config), model, entry["modelVersion"], leaving):
        return client.scale(model, version, workers)


@contextmanager
def _held_still(client: TorchServeClient, drain: Path, model: str, version: str, pids: Sequence[int]) -> Iterator[None]:
    """Within it these workers have no request in hand, where they came to that in time."""
    if not pids:
        yield
        return
    deadline = time.monotonic() + PATIENCE_S
    asking = client.with_deadline(deadline)
    marks = [leaving_file(drain, pid) for pid in pids]

    def ask_until_held() -> None:
        """The one answer that does not come is that of a worker that holds still."""
        while any(mark.exists() for mark in marks) and time.monotonic() < deadline:
            with suppress(ServerError):  # a full queue; another's archive; the worker was ended
                asking.describe_card(model, version)
            time.sleep(POLL_S)

    try:
        for mark in marks:
            mark.touch(mode=0o600)
        with ThreadPoolExecutor(len(marks)) as pool:
            for _ in marks:
                pool.submit(ask_until_held)
            while any(mark.exists() for mark in marks) and time.monotonic() < deadline:
                time.sleep(POLL_S)
            yield
    finally:
        for mark in marks:
            mark.unlink(missing_ok=True)
