"""Small files that are whole at any moment, whatever ends the process: what they said before, or what they say now."""

from pathlib import Path


def write_whole(path: Path, content: bytes) -> None:
    """Write a file beside the one before, which it then replaces. Raises OSError, and leaves the one before then."""
    partial = path.with_name(f"{path.name}.part")
    try:
        partial.write_bytes(content)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
