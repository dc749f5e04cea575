"""A server, or one of its workers, that is about to end: what it has taken is answered first."""

import os
import time
from dataclasses import replace
from pathlib import Path

from vision_serving.errors import DrainingError
from vision_serving.payload import Payload

DRAIN_FILE = "VISION_SERVING_DRAIN_FILE"  # of the environment: the path of a file that exists while the server drains
HOLD_S = 3.0  # a worker that nobody ends goes on then; shorter than any watchdog


def find_refusal() -> DrainingError | None:
    """Why no request is served, None where they are. It dates the file, which says when a request came last."""
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
    """The request with its error in the place of its pictures, to be answered in its own form."""
    return replace(payload, images=(refusal,), options={})


def leaving_file(drain_file: Path, pid: int) -> Path:
    """It exists from when this worker is to be ended until it holds still for that."""
    return drain_file.with_name(f"leaving-{pid}")


def hold_still_to_leave() -> None:
    """Of a worker that is to be scaled away: wait to be ended, with nothing of a client's in hand.

    TorchServe ends it in the middle of its batch. Called in the job of a description, which is a batch of its own.
    """
    path = os.environ.get(DRAIN_FILE)
    if path is None:
        return
    try:
        leaving_file(Path(path), os.getpid()).unlink()
    except FileNotFoundError:
        return
    time.sleep(HOLD_S)
