"""Whether the server is about to stop: then requests are refused at once, and those that were taken are answered."""

import os
from dataclasses import replace

from vision_serving.errors import DrainingError
from vision_serving.payload import Payload

DRAIN_FILE = "VISION_SERVING_DRAIN_FILE"  # of the environment: the path of a file that exists while the server drains


def find_refusal() -> DrainingError | None:
    """Why no request is served, None where they are. It dates the file, which says when a request came last."""
    path = os.environ.get(DRAIN_FILE)
    if path is None:
        return None
    try:
        os.utime(path)
    except FileNotFoundError:
        return None
    return DrainingError("this server is about to stop; ask again, and another one may answer")


def refuse(payload: Payload, refusal: DrainingError) -> Payload:
    """The request with its error in the place of its pictures, to be answered in its own form."""
    return replace(payload, images=(refusal,), options={})
