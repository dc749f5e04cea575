"""The command line of the servers of all peers. It needs no PyTorch: TorchServe would wait for it before it starts."""

import json
import os
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

ENVIRONMENT_KEY = "PEER_SERVER_ARGUMENTS"


@dataclass(frozen=True)
class ServerArguments:
    """The command line of a peer's server. workers: processes (or instances) with a model of their own each."""

    mode: str
    export: Path
    host: str
    port: int
    workers: int
    threads: int
    batch_size: int
    batch_delay_ms: int

    def to_environment(self) -> None:
        """Tell the processes that a framework starts itself: they import the server's file without its flags."""
        os.environ[ENVIRONMENT_KEY] = json.dumps(asdict(self), default=str)

    @classmethod
    def from_environment(cls) -> "ServerArguments":
        values = json.loads(os.environ[ENVIRONMENT_KEY])
        return cls(**{**values, "export": Path(values["export"])})


def parse_server_arguments(docstring: str | None, modes: Sequence[str] = ("artifact", "idiomatic")) -> ServerArguments:
    """Return the flags that every peer's server takes. They are put into the environment too."""
    parser = ArgumentParser(description=docstring, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--mode", choices=modes, required=True)
    parser.add_argument("--export", type=Path, required=True, help="a folder such as exports/digits/openvino-fp32")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1, help="of the model, in each worker")
    parser.add_argument("--batch-size", type=int, default=4, help="requests that may share an inference")
    parser.add_argument("--batch-delay-ms", type=int, default=2, help="how long a request may wait for others")
    values = vars(parser.parse_args())
    arguments = ServerArguments(**{**values, "export": values["export"].resolve()})
    arguments.to_environment()
    return arguments
