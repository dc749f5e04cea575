"""A server, or one of its workers, that is about to end: what it has taken is answered first."""

import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from vision_serving.errors import DrainingError
from vision_serving.requests.payload import Payload

DRAIN_FILE = "VISION_SERVING_DRAIN_FILE"  # of the environment: the path of a file that exists while the server drains
STILL_S = 10.0  # whoever asked for it is gone then
POLL_S = 0.02


def find_refusal() -> DrainingError | None:
    """Return why no request is served, None where they are. It dates the file, which says when a request came last."""
    path = os.environ.get(DRAIN_FILE)
    if path is None:
        return None
    try:
        os.utime(path)
    except FileNotFoundError:
        return None
    except PermissionError:
        pass  # another user's, such as root's, who stops the server: it is there all the same
    return DrainingError("this server is about to stop; ask again, and another one may answer")


def refuse(payload: Payload, refusal: DrainingError) -> Payload:
    """Return the request with its error in the place of its images, to be answered in its own form."""
    return replace(payload, images=(refusal,), options={})


def leaving_files(drain_file: Path, pid: int) -> tuple[Path, Path]:
    """Return two files: the first asks this worker to keep still; it becomes the second when the worker does."""
    return drain_file.with_name(f"leaving-{pid}"), drain_file.with_name(f"still-{pid}")


def keep_still_if_leaving(before: Callable[[], object] = lambda: None) -> None:
    """Wait to be ended, as long as the second file is there, in a worker that is to be scaled away.

    TorchServe ends it in the middle of its batch. Called in the job of a description, which is a batch of its own.
    before: what is left to do.
    """
    path = os.environ.get(DRAIN_FILE)
    if path is None:
        return
    asked, still = leaving_files(Path(path), os.getpid())
    if not asked.exists():
        return
    before()
    try:
        asked.rename(still)
    except OSError:  # nobody asks any more
        return
    deadline = time.monotonic() + STILL_S
    while still.exists() and time.monotonic() < deadline:
        time.sleep(POLL_S)
