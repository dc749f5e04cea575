"""The process of a folder's runtime: `worker.py FOLDER` reads pixels from standard input and writes outputs back.

It imports nothing of this project but the folder's own runtime.py: it runs in environments that have no more.
"""

import io
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

SIZE_BYTES = 8  # of the length of a message, before it


def main() -> None:
    folder = Path(sys.argv[1])
    questions, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what runtimes print is no answer
    sys.path.insert(0, str(folder))
    import runtime

    model = json.loads((folder / "model.json").read_text("utf-8"))
    run = runtime.load(folder / model["artifact"], model["outputs"])
    answers.write(runtime.VERSION.encode() + b"\n")
    answers.flush()
    while (arrays := receive(questions)) is not None:
        send(answers, run(arrays["pixels"]))


def send(stream: IO[bytes], arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write named arrays, and how many bytes they are before them."""
    content = io.BytesIO()
    np.savez(content, **arrays)  # type: ignore[arg-type]
    stream.write(content.tell().to_bytes(SIZE_BYTES, "big") + content.getvalue())
    stream.flush()


def receive(stream: IO[bytes]) -> dict[str, NDArray[Any]] | None:
    """Read named arrays, None at the end of the stream."""
    size = stream.read(SIZE_BYTES)
    if len(size) < SIZE_BYTES:
        return None
    with np.load(io.BytesIO(stream.read(int.from_bytes(size, "big"))), allow_pickle=False) as arrays:
        return dict(arrays)


if __name__ == "__main__":
    main()
