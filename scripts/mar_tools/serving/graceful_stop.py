"""Stop a server without cutting a request.

TorchServe stops at once: it resets every connection. So, first, the queues are passed: a picture is sent to each model,
and when it is answered, all that was sent before has been taken by a worker. Then the workers are told by a file
(`vision_serving.worker.draining`) to refuse what else they take; each that refuses has answered what it had. When
nobody asks any more, or the time is up, the listening sockets are closed, and the server is stopped.

A listening socket that is closed resets the connections that nobody has accepted yet. So, before, it answers no SYN for
a moment: the client's system sends it again after a second, and is refused.
"""

import ctypes
import os
import socket
import struct
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from typing import Any

import psutil

from mar_tools.command_line import Announce
from mar_tools.serving.health import ask_any, ask_each, find_picture, is_draining
from mar_tools.serving.model_status import READY, list_versions
from mar_tools.serving.processes import POLL_S
from mar_tools.serving.server import Server
from mar_tools.serving.torchserve_api import ServerError
from mar_tools.waiting import wait_until

SETTLE_S = 0.3  # for a batch that was handed to a worker to have reached it, on a busy machine too
QUIET_S = 1.0  # without a request, nobody asks any more
LAST_ANSWERS_S = 2.0  # for what came before the sockets were closed
PIDFD_GETFD = 438  # number of the system call, the same on all architectures
SO_ATTACH_FILTER = 26  # <asm-generic/socket.h>
UNACKED = slice(24, 28)  # of tcp_info, <linux/tcp.h>: of a listening socket, how many connections nobody has accepted
WITHOUT_SYN = (  # classic BPF over a TCP segment: opcode, jump if true, jump if false, operand
    (0x30, 0, 0, 13),  # load the byte of the flags
    (0x54, 0, 0, 0x12),  # keep SYN and ACK
    (0x15, 0, 1, 0x02),  # SYN alone opens a connection
    (0x06, 0, 0, 0),  # drop it
    (0x06, 0, 0, 0xFFFFFFFF),  # take anything else, such as the end of a handshake
)

Version = tuple[str, Mapping[str, Any]]


def stop_drained(server: Server, timeout_s: float, announce: Announce) -> bool:
    """Stop, after what was asked before has been answered. False when nothing was running.

    Raises ServerError when something was still unanswered after the time; the server is stopped all the same.
    """
    process = server.process()
    if process is None:
        return server.stop()
    deadline = time.monotonic() + timeout_s
    try:
        cut = answer_all(server, deadline, announce)
        announce("waiting until nobody asks any more")
        is_quiet = wait_until_quiet(server, deadline - time.monotonic())
        if close_listeners(process, set(server.ports().values())):
            wait_until_quiet(server, LAST_ANSWERS_S)
        elif not is_quiet:
            cut.append("clients still asked, and the system lets nobody close the server's sockets, so it reset them")
    finally:
        server.stop()
    if cut:
        raise ServerError(f"stopped, but not all was answered within {timeout_s:g} s: {'; '.join(cut)}")
    return True


def answer_all(server: Server, deadline: float, announce: Callable[[str], None]) -> list[str]:
    """Answer until every worker refuses, as it does afterwards in any case. Returns what was not reached, and why."""
    client = server.client.with_deadline(deadline)
    try:
        versions = [(model, entry) for model, entry in list_versions(client) if _ready_workers(entry)]
    except ServerError as error:
        server.drain_file.touch(mode=0o600)
        return [str(error)]
    announce("answering what was asked until now")
    # A queue is first in, first out: with this answer, what waited has been taken by the workers.
    unpassed = _for_each(
        versions, lambda model, version, workers: ask_any(client, model, version, find_picture(workers), workers)
    )
    time.sleep(SETTLE_S)
    server.drain_file.touch(mode=0o600)
    announce("refusing what is asked from now on")
    return unpassed + _for_each(
        versions, lambda model, version, workers: ask_each(client, model, version, workers, is_draining)
    )


def _for_each(versions: Sequence[Version], step: Callable[[str, str, set[int]], object]) -> list[str]:
    """Return what went wrong, at all at the same time: a model that is slow must not keep the others serving."""

    def find_problem(version: Version) -> str | None:
        model, entry = version
        try:
            step(model, entry["modelVersion"], _ready_workers(entry))
        except ServerError as error:
            return f"{model} {entry['modelVersion']}: {error}"
        return None

    with ThreadPoolExecutor(max(1, len(versions))) as pool:
        return [problem for problem in pool.map(find_problem, versions) if problem is not None]


def _ready_workers(entry: Mapping[str, Any]) -> set[int]:
    return {worker["pid"] for worker in entry["workers"] if worker["status"] == READY}


def wait_until_quiet(server: Server, timeout_s: float) -> bool:
    """Wait until no request has been refused for a while, or the time is up: each refusal dates the file.

    Return whether it is quiet.
    """
    dated, since = 0, time.monotonic()  # by this clock: the other one may jump

    def is_quiet() -> bool:
        nonlocal dated, since
        if dated != (dated := server.drain_file.stat().st_mtime_ns):
            since = time.monotonic()
        return time.monotonic() - since >= QUIET_S

    return wait_until(is_quiet, timeout_s, POLL_S)


def close_listeners(process: psutil.Process, ports: set[int]) -> bool:
    """Close them: new connections are refused from now on, standing ones answered.

    False where the kernel does not allow it.

    TorchServe cannot close them alone. Linux lets a process use another's socket if it may trace it: as root, or with
    CAP_SYS_PTRACE, or as the same user where kernel.yama.ptrace_scope is 0.
    """
    with ExitStack() as stack:
        try:
            listeners = [
                stack.enter_context(_copy_socket(process.pid, connection.fd))
                for connection in process.net_connections("tcp")
                if connection.status == psutil.CONN_LISTEN and connection.laddr.port in ports
            ]
        except (AttributeError, OSError, psutil.Error):  # not on Linux; not allowed; ended by itself
            return False
        for listener in listeners:
            with suppress(OSError):  # where filters are not allowed, those that wait to be accepted are reset
                _answer_no_syn(listener)
        time.sleep(SETTLE_S)  # for handshakes to end
        wait_until(lambda: not any(map(_count_waiting, listeners)), LAST_ANSWERS_S, POLL_S)
        for listener in listeners:
            listener.shutdown(socket.SHUT_RD)
        return bool(listeners)


def _answer_no_syn(listener: socket.socket) -> None:
    code = b"".join(struct.pack("=HBBI", *instruction) for instruction in WITHOUT_SYN)
    buffer = ctypes.create_string_buffer(code, len(code))
    listener.setsockopt(
        socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("@HP", len(WITHOUT_SYN), ctypes.addressof(buffer))
    )


def _count_waiting(listener: socket.socket) -> int:
    """Count connections that stand, and that the server has not accepted."""
    info = listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, UNACKED.stop)
    return int.from_bytes(info[UNACKED], sys.byteorder)


def _copy_socket(pid: int, descriptor: int) -> socket.socket:
    """Raises OSError when it is not allowed."""
    handle = os.pidfd_open(pid)
    try:
        copy = ctypes.CDLL(None, use_errno=True).syscall(PIDFD_GETFD, handle, descriptor, 0)
    finally:
        os.close(handle)
    if copy < 0:
        raise OSError(ctypes.get_errno(), "pidfd_getfd")
    return socket.socket(fileno=copy)
