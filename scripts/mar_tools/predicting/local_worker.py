"""One process of the local engine: `python -m mar_tools.predicting.local_worker`, JSON lines in and out.

The first line says what to load, each further one is a chunk and where to write its rows. It ends with its input, at
once: whoever asked is dead then, and nobody would name the shard.
"""

import os
import queue
import sys
import threading
import traceback
from pathlib import Path

import orjson

from mar_tools.asking import answer, own_output
from mar_tools.predicting.chunks import ChunkPredictor, freeze_objects
from mar_tools.predicting.inputs import Item
from mar_tools.predicting.rows import Origin
from mar_tools.verification.observations import load_handler
from vision_serving.cores import plan_threads, usable_cores
from vision_serving.errors import VisionServingError
from vision_serving.validation import StrictModel


class WorkerJob(StrictModel):
    """What to load and how. threads: of the runtime, in each of so many processes."""

    folder: Path
    processes: int
    threads: int
    options: dict[str, str]
    origin: tuple[str, str | None, str | None]
    task: str


def main() -> None:
    answers = own_output()
    lines = follow_input()
    try:
        job = WorkerJob.model_validate_json(lines.get())
        handler = load_handler(job.folder, plan_threads(usable_cores(), job.processes, job.threads))
        predictor = ChunkPredictor(handler, job.options, Origin(*job.origin), job.task)
        probe = predictor.probe()
        freeze_objects()
        answer(answers, probe=probe)
        while True:
            asked = orjson.loads(lines.get())
            items = [Item(name, tuple(place)) for name, place in asked["items"]]
            answer(answers, **predictor.predict(items, asked["batch_size"], Path(asked["path"]))._asdict())
    except OSError as error:  # of the disk; files that cannot be read are rows
        answer(answers, disk=[error.errno, error.strerror or str(error), str(error.filename)])
    except VisionServingError as error:
        answer(answers, refused=str(error))
    except Exception as error:  # the border: the parent makes it the reason
        traceback.print_exc()
        answer(answers, problem=f"{type(error).__name__}: {error}"[:300])
    os._exit(1)


def follow_input() -> "queue.Queue[str]":
    """Return the lines of standard input as they come. At its end the process ends, whatever it is at."""
    lines: queue.Queue[str] = queue.Queue()

    def follow() -> None:
        for line in iter(sys.stdin.readline, ""):
            lines.put(line)
        os._exit(0)

    threading.Thread(target=follow, daemon=True).start()
    return lines


if __name__ == "__main__":
    main()
