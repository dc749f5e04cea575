"""What a start needs of the machine: named before TorchServe starts, which would end in a trace, or start half."""

import errno
import os
import resource
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from shutil import disk_usage
from zipfile import ZipFile

from mar_tools.serving.address import read_address
from mar_tools.serving.ports import find_obstacle, listening_places
from mar_tools.serving.processes import PREFIX, find_temporary
from mar_tools.serving.start_record import find_owner
from mar_tools.serving.torchserve_api import ServerError
from vision_serving.errors import ConfigError
from vision_serving.worker.sample_files import tidy_samples
from vision_serving.worker.sample_settings import read_sample_bounds, samples_folder
from vision_serving.worker.server_settings import STATE_KEY, read_properties, read_text, state_folder

# TorchServe would follow these, and none of our commands.
NOT_FOLLOWED = {
    "TS_CONFIG_FILE": "give --config FILE",
    "LOG_LOCATION": f"name a folder as `{STATE_KEY}` in config.properties",
    "METRICS_LOCATION": f"name a folder as `{STATE_KEY}` in config.properties",
}
TEMPORARY_VARIABLES = ("TMPDIR", "TEMP", "TMP")  # as Python's tempfile, which passes over a full one in silence
LONGEST_SOCKET_PATH = 107  # bytes; <linux/un.h>
LONGEST_SOCKET_NAME = f"/{PREFIX}12345678/.ts.sock.65535"
LEAST_OPEN_FILES = 1024  # jars, sockets and threads of a frontend, before any client
BLOCK_BYTES = 512  # of st_blocks
SPARE_BYTES = 16 << 20  # logs, tokens, and what workers put beside their archives
ELSEWHERE = f"or name another folder by --state, or as `{STATE_KEY}` in config.properties"
FULL = (errno.ENOSPC, errno.EDQUOT)


def check_limits(environment: Mapping[str, str]) -> None:
    """Raises ServerError for variables that are not followed, and a limit of open files that is too low."""
    for name, advice in NOT_FOLLOWED.items():
        if name in environment:
            raise ServerError(f"{name} is set to {environment[name]!r}, which is not followed; unset it, and {advice}")
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]  # Java raises the soft limit itself
    if most != resource.RLIM_INFINITY and most < LEAST_OPEN_FILES:
        raise ServerError(
            f"this shell allows {most} open files, and a server needs {LEAST_OPEN_FILES}; raise ulimit -Hn"
        )


def check_ports(values: Mapping[str, str], name: str) -> None:
    """Raises ServerError where the server of these properties could not listen; name: of their file."""
    for key, (host, port) in listening_places(values).items():
        obstacle = find_obstacle(host, port)
        if obstacle is not None:
            raise ServerError(f"port {port} ({key} in {name}) {obstacle}; stop it or change the port")


def prepare_logs(config: Path) -> Path:
    """Return the folder of the logs, kept from others. Samples that are too old go, also where nobody samples any more.

    Raises ServerError where logs or tokens cannot be written, or are another server's.
    """
    folder = state_folder(config) / "logs"
    with _named(folder):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path in [folder, *folder.rglob("*")]:
            mode = path.lstat().st_mode & 0o777
            if mode & 0o077 and not (path.is_symlink() and path != folder):
                path.chmod(mode & 0o700)
    owner = find_owner(folder.parent)
    if owner not in (None, config.resolve()):
        raise ServerError(f"{folder.parent} belongs to the server of {owner}; stop that one, {ELSEWHERE}")
    check_space(folder, SPARE_BYTES)
    if read_address(config).key_file is not None:
        check_space(folder.parent, 0)
    with suppress(OSError, ConfigError):  # settings that cannot be read are told by another check
        tidy_samples(samples_folder(config), read_sample_bounds(read_properties(read_text(config))))
    return folder


def choose_temporary_place(config: Path, archives: Sequence[Path]) -> Path:
    """Return where the server's temporary folder goes, which holds these archives unpacked. Raises ServerError."""
    state, given = state_folder(config), [os.environ[name] for name in TEMPORARY_VARIABLES if os.environ.get(name)]
    if state != config.resolve().parent:
        place = state
    else:
        place = Path(given[0]).absolute() if given else Path(tempfile.gettempdir())
    length = len(os.fsencode(place)) + len(LONGEST_SOCKET_NAME)
    if length > LONGEST_SOCKET_PATH:
        most = LONGEST_SOCKET_PATH - len(LONGEST_SOCKET_NAME)
        advice = f"give a shorter one by TMPDIR, by --state, or as `{STATE_KEY}` in config.properties"
        raise ServerError(f"{place}: expected at most {most} bytes of path, for workers have sockets there; {advice}")
    unpacked = sum(entry.file_size for archive in archives for entry in ZipFile(archive).infolist())
    check_space(place, SPARE_BYTES + unpacked - _reusable_bytes(config, place))
    return place


def _reusable_bytes(config: Path, place: Path) -> int:
    """Return what a running server's folder holds there, which a restart removes first."""
    held = find_temporary(config)
    if held is None or not held.is_dir() or held.stat().st_dev != place.stat().st_dev:
        return 0
    total = 0
    for path in held.rglob("*"):
        with suppress(FileNotFoundError):  # a worker that ends removes its socket meanwhile
            total += path.lstat().st_blocks * BLOCK_BYTES
    return total


def check_space(folder: Path, need: int) -> None:
    """Raises ServerError where nothing can be written, or less than `need` bytes."""
    with _named(folder):
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(bytes(1 << 16))
        free = disk_usage(folder).free
    if free < need:
        lack = f"has {free >> 20} MiB left, and a start needs {need >> 20}"
        raise ServerError(f"the disk of {folder} {lack}; free some, {ELSEWHERE}")


@contextmanager
def _named(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        advice = "free some" if error.errno in FULL else "let this user write there"
        raise ServerError(f"cannot write in {folder}: {error.strerror or error}; {advice}, {ELSEWHERE}") from error
