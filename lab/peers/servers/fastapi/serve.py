"""FastAPI on uvicorn: a process per worker, the model in a thread beside the event loop.

FastAPI has no batching of its own. Its users write a queue like the one below; --batch-size 1 serves without.
"""

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

import uvicorn
from fastapi import FastAPI, Request, Response

from lab.peers.peer_arguments import ServerArguments, parse_server_arguments
from lab.peers.peer_servers import PeerModel, load_model

Waiting = tuple[bytes, "asyncio.Future[bytes]"]


class Batcher:
    """Collects requests until a batch is full or its first one has waited long enough, and runs one batch at a time."""

    def __init__(self, model: PeerModel, size: int, delay_s: float) -> None:
        self._model, self._size, self._delay_s = model, size, delay_s
        self._queue: asyncio.Queue[Waiting] = asyncio.Queue()
        self._executor = ThreadPoolExecutor(1)

    async def predict(self, body: bytes) -> bytes:
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._queue.put_nowait((body, answer))
        return await answer

    async def run(self) -> None:
        while True:
            batch = await self._collect()
            try:
                bodies = [body for body, _ in batch]
                answers = await asyncio.get_running_loop().run_in_executor(self._executor, self._predict, bodies)
            except Exception as error:
                for _, waiting in batch:
                    if not waiting.done():
                        waiting.set_exception(error)
                continue
            for (_, waiting), answer in zip(batch, answers, strict=True):
                if not waiting.done():  # its client may have left
                    waiting.set_result(answer)

    async def _collect(self) -> list[Waiting]:
        loop = asyncio.get_running_loop()
        batch = [await self._queue.get()]
        deadline = loop.time() + self._delay_s
        while len(batch) < self._size:
            if not self._queue.empty():
                batch.append(self._queue.get_nowait())
                continue
            try:
                batch.append(await asyncio.wait_for(self._queue.get(), deadline - loop.time()))
            except asyncio.TimeoutError:
                break
        return batch

    def _predict(self, bodies: list[bytes]) -> list[bytes]:
        return self._model.predict([self._model.decode(body) for body in bodies])


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    arguments = ServerArguments.from_environment()
    app.state.batcher = Batcher(load_model(arguments), arguments.batch_size, arguments.batch_delay_ms / 1000)
    task = asyncio.create_task(app.state.batcher.run())
    yield
    task.cancel()


app = FastAPI(lifespan=lifespan)


@app.post("/predict")
async def predict(request: Request) -> Response:
    answer = await app.state.batcher.predict(await request.body())
    return Response(answer, media_type="application/json")


if __name__ == "__main__":
    arguments = parse_server_arguments(__doc__)
    uvicorn.run(
        "serve:app",
        host=arguments.host,
        port=arguments.port,
        workers=arguments.workers,
        access_log=False,
        log_level="warning",
    )
