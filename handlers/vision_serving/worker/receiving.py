"""How a worker gets a body from TorchServe's frontend: straight into memory of the body's length.

TorchServe's own way takes the body in pieces, and copies each of them twice. Of 25 MB that is 35 ms against 8, in which
all other requests of the batch wait.
"""

import logging
import socket
import sys

SOCKET_CODE = "ts.protocol.otf_message_handler"
READER = "_retrieve_buffer"

logger = logging.getLogger(__name__)


def receive_at_once() -> None:
    """Put `receive` in the place of TorchServe's own function. Do nothing where another server started the worker."""
    module = sys.modules.get(SOCKET_CODE)
    if hasattr(module, READER):
        setattr(module, READER, receive)
    elif module is not None:  # of another release: it serves on, as slowly as it does
        logger.warning("%s.%s is not there; bodies are received in TorchServe's own way", SOCKET_CODE, READER)


def receive(connection: socket.socket, length: int) -> bytearray:
    """Return the next `length` bytes. Ends the process where the frontend has gone, as TorchServe's own does."""
    body = bytearray(length)
    rest = memoryview(body)
    while rest:
        taken = connection.recv_into(rest)
        if not taken:
            logger.info("the frontend has gone")
            sys.exit(0)
        rest = rest[taken:]
    return body
