"""Archives that are seldom asked for: each is loaded when it is, and put away when others need its memory."""

import asyncio
import json
import logging
import os
import sys
from collections.abc import Mapping
from tempfile import TemporaryDirectory
from typing import Any

import psutil

from mar_tools.ray_serving.channel import Listening
from mar_tools.ray_serving.replica import Spec, State, find_host

logger = logging.getLogger("ray.serve")
LOAD_S, TELL_S = 300.0, 30.0
DRAIN_S = 150.0  # for what is under way; the archive's own code ends what takes longer than its responseTimeout
MB = 10**6
EXPECTED_BYTES = 500 * MB  # of an archive that was never loaded
LINE_BYTES = 1 << 20


class LoadError(Exception):
    """An archive cannot be loaded; the message says why."""


class BusyError(Exception):
    """An archive cannot be loaded now; the message says why."""


class Loaded:
    """A process with an archive. listening: what it said when it had loaded it. log: passes on what it tells.

    folder: where it unpacks; it is removed here, for a process that was killed removes nothing.
    """

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        listening: Listening,
        log: "asyncio.Future[None]",
        folder: "TemporaryDirectory[str]",
    ) -> None:
        self._process, self.listening, self._log, self._folder = process, listening, log, folder

    @property
    def is_alive(self) -> bool:
        return self._process.returncode is None

    @property
    def size(self) -> int:
        """Return the bytes of memory that only it has."""
        try:
            return int(psutil.Process(self._process.pid).memory_full_info().uss)
        except psutil.Error:  # it has just ended
            return 0

    async def ask_state(self) -> State | None:
        """Return what it tells, None where it has ended. One that hangs is killed: its memory is wanted."""
        self._write(b"state\n")
        try:
            return State(**await read_line(self._process, TELL_S))
        except (ValueError, TimeoutError):
            logger.warning("process %d does not tell its state, and is ended", self._process.pid)
            await self.kill()
            return None

    async def drain(self) -> None:
        """Let it answer what it has, and end. One that does not is killed."""
        if self.is_alive:
            self._write(b"drain\n")
        try:
            await asyncio.wait_for(self._process.wait(), DRAIN_S)
        except (asyncio.TimeoutError, TimeoutError):
            logger.warning("process %d has not ended in %g s, and is killed", self._process.pid, DRAIN_S)
        await self.kill()

    async def kill(self) -> None:
        await end(self._process, self._log, self._folder)

    def _write(self, line: bytes) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line)


class Shelf:
    """The deployment. memory_bytes: what the archives that are loaded may have together; one at a time is loaded.

    host: the address that processes listen at; None takes the one that Ray has for this machine.
    """

    def __init__(self, memory_bytes: int, host: str | None = None) -> None:
        self._memory_bytes, self._host = memory_bytes, host
        self._specs: Mapping[str, Any] = {}
        self._loaded: dict[str, Loaded] = {}
        self._sizes: dict[str, int] = {}  # of each archive when it was loaded last
        self._lock = asyncio.Lock()

    async def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Know these archives from now on: {"archives": {application: the fields of Spec}}."""
        old, self._specs = self._specs, user_config["archives"]
        async with self._lock:
            for application in [name for name in self._loaded if old.get(name) != self._specs.get(name)]:
                await self._loaded.pop(application).drain()
                self._sizes.pop(application, None)

    async def open(self, application: str) -> dict[str, Any]:
        """Return where an archive is asked, and load it before where it is not: {"listening": fields of Listening}.

        Else {"problem": why it cannot be loaded} or {"busy": why it cannot be loaded now}.
        """
        async with self._lock:
            try:
                return {"listening": (await self._open(application)).listening._asdict()}
            except LoadError as error:
                return {"problem": str(error)}
            except BusyError as error:
                return {"busy": str(error)}

    async def drain(self) -> None:
        """Let all that is loaded answer what it has, and end."""
        await asyncio.gather(*(loaded.drain() for loaded in self._loaded.values()))

    async def _open(self, application: str) -> Loaded:
        found = self._loaded.get(application)
        if found is not None and found.is_alive:
            return found
        if found is not None:
            await self._loaded.pop(application).kill()
        if application not in self._specs:  # it is about to be deployed, or was taken away
            raise BusyError(f"{application} is not among the archives that are loaded on demand")
        await self._make_room(self._sizes.get(application, min(EXPECTED_BYTES, self._memory_bytes)))
        loaded = await load(Spec(**self._specs[application]), self._host or find_host())
        size = self._sizes[application] = loaded.size
        if size > self._memory_bytes:
            await loaded.kill()
            has = f"{self._memory_bytes // MB} MB of --on-demand-memory"
            raise LoadError(f"{application} takes {size // MB} MB; it does not fit the {has}")
        try:
            await self._make_room(size)
        except BaseException:
            await loaded.kill()
            raise
        self._loaded[application] = loaded
        return loaded

    async def _make_room(self, size: int) -> None:
        """Put away what has waited longest without a request, until so many bytes are free. Raises BusyError."""
        while sum(loaded.size for loaded in self._loaded.values()) + size > self._memory_bytes:
            idle_s: dict[str, float] = {}
            for name, loaded in [*self._loaded.items()]:
                state = await loaded.ask_state() if loaded.is_alive else None
                if state is None:
                    await self._loaded.pop(name).kill()
                elif not state.under_way:
                    idle_s[name] = state.idle_s
            if not self._loaded:
                return
            if not idle_s:
                raise BusyError("all models that are loaded on demand have requests under way")
            longest = max(idle_s, key=lambda name: idle_s[name])
            logger.info("%s is put away", longest)
            await self._loaded.pop(longest).drain()


async def load(spec: Spec, host: str) -> Loaded:
    """Load an archive in a process of its own. Raises LoadError."""
    command = [sys.executable, "-m", "mar_tools.ray_serving.loaded_archive", json.dumps(spec._asdict()), host]
    pipe = asyncio.subprocess.PIPE
    folder = TemporaryDirectory(prefix="vision-serving-", ignore_cleanup_errors=True)
    process = await asyncio.create_subprocess_exec(
        *command, stdin=pipe, stdout=pipe, stderr=pipe, limit=LINE_BYTES, env={**os.environ, "TMPDIR": folder.name}
    )
    said: list[bytes] = []
    log = asyncio.ensure_future(pass_on(process, said))
    try:
        return Loaded(process, Listening(**await read_line(process, LOAD_S)), log, folder)
    except BaseException as error:
        await end(process, log, folder)
        if not isinstance(error, ValueError | TimeoutError):
            raise
        lines = [line.decode(errors="replace").strip() for line in said if line.strip()]
        raise LoadError(lines[-1].partition("RuntimeError: ")[2] or lines[-1] if lines else "it did not load") from None


async def end(
    process: asyncio.subprocess.Process, log: "asyncio.Future[None]", folder: "TemporaryDirectory[str]"
) -> None:
    """Kill a process where it lives, and return when all that it wrote is in the log and its folder is removed."""
    if process.returncode is None:
        process.kill()
    await process.wait()
    await log
    folder.cleanup()


async def pass_on(process: asyncio.subprocess.Process, said: list[bytes]) -> None:
    """Write what a process writes to standard error into the log, and keep the last line."""
    assert process.stderr is not None
    while True:
        try:
            line = await process.stderr.readline()
        except ValueError:  # a line above LINE_BYTES is dropped: what is not read would halt the process
            continue
        if not line:
            return
        said[:] = [line]
        logger.info("%s", line.decode(errors="replace").rstrip())


async def read_line(process: asyncio.subprocess.Process, timeout_s: float) -> dict[str, Any]:
    """Raises ValueError where it has ended, and TimeoutError."""
    assert process.stdout is not None
    try:
        line = await asyncio.wait_for(process.stdout.readline(), timeout_s)
    except asyncio.TimeoutError as error:
        raise TimeoutError from error
    document: dict[str, Any] = json.loads(line)
    return document
