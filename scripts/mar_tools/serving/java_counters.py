"""What a Java counts of itself, in the file that HotSpot keeps for each of its processes."""

import re
import struct
from pathlib import Path

import psutil

COLLECTIONS = re.compile(r"sun\.gc\.collector\.\d+\.time")
FREQUENCY = "sun.os.hrt.frequency"  # ticks a second of all times
LONG = ord("J")


def collecting_s(process: psutil.Process) -> float | None:
    """Return how long collections of memory have stopped this Java, in seconds.

    None where it keeps no counters (-XX:-UsePerfData, another system), or has just begun or ended.
    """
    try:
        [path] = Path(f"/proc/{process.pid}/root/tmp").glob(f"hsperfdata_*/{process.pid}")  # whatever its TMPDIR is
        counters = read_counters(path.read_bytes())
        return sum(ticks for name, ticks in counters.items() if COLLECTIONS.fullmatch(name)) / counters[FREQUENCY]
    except (ValueError, LookupError, ArithmeticError, OSError, struct.error):
        return None


def read_counters(data: bytes) -> dict[str, int]:
    """Return the whole numbers by name. Raises ValueError, LookupError or struct.error for bytes of another format."""
    order = "<" if data[4] else ">"
    at, count = struct.unpack_from(f"{order}II", data, 24)
    found = {}
    for _ in range(count):
        length, name, _, kind, value = struct.unpack_from(f"{order}IIIB3xI", data, at)
        if kind == LONG:
            key = data[at + name : data.index(0, at + name)].decode()
            (found[key],) = struct.unpack_from(f"{order}q", data, at + value)
        at += length
    return found
