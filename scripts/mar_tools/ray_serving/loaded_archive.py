"""The process of an archive that is loaded on demand. shelf.py starts it and talks to it in lines of JSON.

It ends when its standard input does, so none is left behind.
"""

import asyncio
import json
import os
import sys
from typing import Any

from mar_tools.ray_serving.replica import ModelReplica, Spec

ARGUMENTS = 2  # a Spec as JSON, and the address to listen at


async def main(spec: Spec, host: str) -> None:
    tell = keep_output()
    replica = ModelReplica(spec)
    tell((await replica.listen(host))._asdict())
    asked = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(asked), sys.stdin)
    while line := await asked.readline():
        if line == b"drain\n":
            await replica.drain()
            return
        tell(replica.state()._asdict())


def keep_output() -> Any:
    """Return what writes to standard output; what the archive's code prints goes to standard error from now on."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return lambda document: print(json.dumps(document), file=answers, flush=True)


if __name__ == "__main__":
    assert len(sys.argv) == ARGUMENTS + 1
    asyncio.run(main(Spec(**json.loads(sys.argv[1])), sys.argv[2]))
    os._exit(0)  # threads of a model must not keep it
