"""What a report says about the machine that it was made on."""

import platform
from pathlib import Path


def cpu_name() -> str:
    """The model name of the CPU, as Linux gives it."""
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.is_file():
        return platform.processor() or "unknown"
    lines = cpuinfo.read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
