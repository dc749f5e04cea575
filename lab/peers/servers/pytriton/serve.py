"""PyTriton: NVIDIA's Triton Inference Server with its dynamic batcher, in front of Python functions of this process.

Several instances of a model are threads of one process, each with a model of its own.
"""

import os
import sysconfig
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

from lab.peers.peer_arguments import ServerArguments, parse_server_arguments
from lab.peers.peer_servers import load_model


def new_instance(arguments: ServerArguments) -> Callable[..., dict[str, NDArray[np.object_]]]:
    model = load_model(arguments)

    @batch
    def infer(image: NDArray[np.object_]) -> dict[str, NDArray[np.object_]]:
        """Infer from encoded images (N, 1)."""
        answers = model.predict([model.decode(body) for body in image[:, 0]])
        return {"answer": np.array(answers, dtype=object).reshape(-1, 1)}

    return infer


def main(arguments: ServerArguments) -> None:
    # Triton's own Python processes load libpython: it has to be the one of this interpreter, not the system's.
    folders = [sysconfig.get_config_var("LIBDIR"), os.environ.get("LD_LIBRARY_PATH", "")]
    os.environ["LD_LIBRARY_PATH"] = os.pathsep.join(filter(None, folders))
    config = TritonConfig(
        http_address=arguments.host, http_port=arguments.port, allow_grpc=False, allow_metrics=False, log_verbose=0
    )
    delay_us = arguments.batch_delay_ms * 1000
    with TemporaryDirectory() as folder, Triton(config=config, workspace=Path(folder, "workspace")) as triton:
        triton.bind(
            model_name="classifier",
            infer_func=[new_instance(arguments) for _ in range(arguments.workers)],
            inputs=[Tensor(name="image", dtype=bytes, shape=(1,))],
            outputs=[Tensor(name="answer", dtype=bytes, shape=(1,))],
            config=ModelConfig(
                max_batch_size=arguments.batch_size, batcher=DynamicBatcher(max_queue_delay_microseconds=delay_us)
            ),
        )
        triton.serve()


if __name__ == "__main__":
    main(parse_server_arguments(__doc__))
