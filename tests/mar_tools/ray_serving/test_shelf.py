"""Archives on demand are processes of their own: loaded when asked for, put away when another needs the memory."""

import asyncio
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import orjson
import psutil
import pytest

from mar_tools.archives.archive import open_archive
from mar_tools.command_line import ROOT
from mar_tools.ray_serving import shelf as shelf_module
from mar_tools.ray_serving.channel import Listening
from mar_tools.ray_serving.exchange import Request
from mar_tools.ray_serving.pool import ReplicaPool
from mar_tools.ray_serving.refusals import refuse_unready
from mar_tools.ray_serving.shelf import MB, Shelf

LONG_S = 120.0
NAMES = ("first", "second")
OF_BOTH = 100_000 * MB


@pytest.fixture(scope="module")
def picture() -> bytes:
    return (ROOT / "examples" / "digits_classification" / "samples" / "seven.png").read_bytes()


@pytest.fixture
def specs(archive: Path, tmp_path: Path) -> dict[str, Any]:
    config = tmp_path / "config.properties"
    config.write_text("")
    sha256 = open_archive(archive).sha256
    of_both = {"archive": str(archive), "sha256": sha256, "version": "1.0", "config": str(config)}
    return {name: {**of_both, "model": name, "batch_size": 4, "max_batch_delay_ms": 1} for name in NAMES}


def run(check: Callable[[Shelf], Awaitable[None]], specs: dict[str, Any], memory_bytes: int = OF_BOTH) -> None:
    async def do() -> None:
        shelf = Shelf(memory_bytes, "127.0.0.1")
        await shelf.reconfigure({"archives": specs})
        try:
            await check(shelf)
        finally:
            for loaded in shelf._loaded.values():
                await loaded.kill()

    asyncio.run(do())


def pool_of(shelf: Shelf, name: str) -> ReplicaPool:
    async def load() -> Listening:
        said = await shelf.open(name)
        if "listening" not in said:
            raise refuse_unready(str(said))
        return Listening(**said["listening"])

    return ReplicaPool(8, 200, load)


async def ask(pool: ReplicaPool, picture: bytes) -> tuple[int, str]:
    answer = await pool.ask(Request({"body": picture}, {}), 2, LONG_S)
    return answer.status, orjson.loads(answer.body)["classes"][0]["label"]


def test_one_is_loaded_once_and_answers(specs: dict[str, Any], picture: bytes) -> None:
    async def check(shelf: Shelf) -> None:
        first = await shelf.open("first")
        assert await shelf.open("first") == first
        assert first["listening"]["card"]["task"] == "classification"
        status, _ = await ask(pool_of(shelf, "first"), picture)
        assert status == 200

    run(check, specs)


def test_what_waited_longest_is_put_away_and_comes_back_and_no_request_is_lost(
    specs: dict[str, Any], picture: bytes
) -> None:
    async def check(shelf: Shelf) -> None:
        await shelf.open("first")
        size = shelf._loaded["first"].size
        shelf._memory_bytes = size + size // 2
        pools = [pool_of(shelf, name) for name in NAMES]
        expected = await ask(pools[0], picture)
        for _ in range(2):
            for pool in pools:
                answers = await asyncio.gather(*(ask(pool, picture) for _ in range(20)))
                assert set(answers) == {expected}
                assert len(shelf._loaded) == 1

    run(check, specs)


def test_what_is_asked_is_not_put_away_and_the_other_is_told_to_come_again(
    specs: dict[str, Any], picture: bytes
) -> None:
    async def check(shelf: Shelf) -> None:
        await shelf.open("first")
        shelf._memory_bytes = shelf._loaded["first"].size * 3 // 2
        pool = pool_of(shelf, "first")
        asked = [asyncio.ensure_future(ask(pool, picture)) for _ in range(200)]
        said = await shelf.open("second")
        while "busy" in said:
            assert "under way" in said["busy"]
            said = await shelf.open("second")
        assert {status for status, _ in await asyncio.gather(*asked)} == {200}
        assert "listening" in said

    run(check, specs)


def test_what_does_not_fit_says_how_much_it_takes(specs: dict[str, Any]) -> None:
    async def check(shelf: Shelf) -> None:
        said = await shelf.open("first")
        assert "of --on-demand-memory" in said["problem"]
        assert shelf._loaded == {}

    run(check, specs, 10 * MB)


def test_what_cannot_be_loaded_says_why_and_the_others_go_on(specs: dict[str, Any]) -> None:
    async def check(shelf: Shelf) -> None:
        said = await shelf.open("first")
        assert "changed after it was checked" in said["problem"]
        assert "listening" in await shelf.open("second")

    run(check, {**specs, "first": {**specs["first"], "sha256": "0" * 64}})


def test_a_process_that_was_killed_is_started_again(specs: dict[str, Any], picture: bytes) -> None:
    async def check(shelf: Shelf) -> None:
        pool = pool_of(shelf, "first")
        expected = await ask(pool, picture)
        await shelf._loaded["first"].kill()
        assert await ask(pool, picture) == expected

    run(check, specs)


def test_a_process_that_hangs_is_ended_and_holds_up_no_other(
    specs: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shelf_module, "TELL_S", 0.5)

    async def check(shelf: Shelf) -> None:
        await shelf.open("first")
        hung = shelf._loaded["first"]
        shelf._memory_bytes = hung.size * 3 // 2
        os.kill(hung._process.pid, signal.SIGSTOP)
        assert "listening" in await shelf.open("second")
        assert (list(shelf._loaded), hung.is_alive) == (["second"], False)

    run(check, specs)


def test_one_that_does_not_end_is_killed(specs: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shelf_module, "DRAIN_S", 0.5)

    async def check(shelf: Shelf) -> None:
        await shelf.open("first")
        hung = shelf._loaded["first"]
        os.kill(hung._process.pid, signal.SIGSTOP)
        await shelf.reconfigure({"archives": {}})
        assert not hung.is_alive

    run(check, specs)


def test_no_folder_is_left_of_what_was_put_away_or_killed(
    specs: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    async def check(shelf: Shelf) -> None:
        for name in NAMES:
            await shelf.open(name)
        assert len([*tmp_path.glob("vision-serving-*")]) == 2
        await shelf._loaded["first"].kill()
        await shelf.reconfigure({"archives": {}})
        assert [*tmp_path.glob("vision-serving-*")] == []

    run(check, specs)


def test_what_is_not_deployed_yet_is_to_come_again(specs: dict[str, Any]) -> None:
    async def check(shelf: Shelf) -> None:
        assert "third" in (await shelf.open("third"))["busy"]

    run(check, specs)


def test_a_load_that_is_given_up_leaves_no_process(specs: dict[str, Any]) -> None:
    async def check(shelf: Shelf) -> None:
        opening = asyncio.ensure_future(shelf.open("first"))
        while not (started := psutil.Process().children()):
            await asyncio.sleep(0.01)
        opening.cancel()
        await asyncio.wait([opening])
        assert [process for process in started if process.is_running()] == []
        assert "listening" in await shelf.open("first")

    run(check, specs)


def test_a_line_above_the_bound_does_not_halt_the_process() -> None:
    async def check() -> list[bytes]:
        writes = "import sys; sys.stderr.write('a' * 10_000_000 + '\\nlast\\n')"
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", writes, stderr=asyncio.subprocess.PIPE)
        said: list[bytes] = []
        await shelf_module.pass_on(process, said)
        await process.wait()
        return said

    assert asyncio.run(check()) == [b"last\n"]


def test_an_archive_that_is_deployed_anew_or_no_more_is_put_away(specs: dict[str, Any], tmp_path: Path) -> None:
    async def check(shelf: Shelf) -> None:
        await shelf.open("first")
        await shelf.open("second")
        copy = shutil.copy(specs["first"]["archive"], tmp_path / "new.mar")
        await shelf.reconfigure({"archives": {"first": {**specs["first"], "archive": str(copy)}}})
        assert shelf._loaded == {}
        assert "listening" in await shelf.open("first")

    run(check, specs)
