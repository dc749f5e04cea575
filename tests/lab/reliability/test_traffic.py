"""The driver against a small real server that answers, lies, refuses, is slow, and hangs up."""

import asyncio
import itertools
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from aiohttp import web

from lab.testbed.raw_http import hold_connections
from lab.testbed.traffic import Ask, Traffic, send_all
from mar_tools.serving.ports import find_free_ports

GOOD = Ask("good", "/echo", b"hello", check=lambda body: "" if body == b"hello" else f"not hello: {body!r}")
HANGS_UP = Ask("hangs up", "/hang-up")


async def echo(request: web.Request) -> web.Response:
    return web.Response(body=await request.read(), headers={"X-Batch-Size": "3"})


async def lie(request: web.Request) -> web.Response:
    return web.Response(body=b"bye")


async def hang_up(request: web.Request) -> web.Response:
    assert request.transport is not None
    request.transport.close()
    return web.Response()


async def sleep(request: web.Request) -> web.Response:
    await asyncio.sleep(1.0)
    return web.Response()


async def path(request: web.Request) -> web.Response:
    return web.Response(text=request.raw_path)


def refuse_every_other() -> web.Application:
    numbers = itertools.count()

    async def refuse(request: web.Request) -> web.Response:
        return web.Response(status=503 if next(numbers) % 2 == 0 else 200, body=b"hello")

    application = web.Application()
    application.router.add_post("/echo", echo)
    application.router.add_post("/lie", lie)
    application.router.add_post("/hang-up", hang_up)
    application.router.add_post("/sleep", sleep)
    application.router.add_post("/refuse", refuse)
    application.router.add_post("/{path:.*}", path)
    return application


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    (port,) = find_free_ports(1)
    loop, started = asyncio.new_event_loop(), threading.Event()

    async def serve() -> web.AppRunner:
        runner = web.AppRunner(refuse_every_other())
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        started.set()
        return runner

    def run() -> None:
        runner = loop.run_until_complete(serve())
        loop.run_forever()
        loop.run_until_complete(runner.cleanup())

    thread = threading.Thread(target=run)
    thread.start()
    started.wait()
    yield f"http://127.0.0.1:{port}"
    loop.call_soon_threadsafe(loop.stop)
    thread.join()


def test_answers_come_in_the_order_of_the_requests_and_each_is_judged_by_its_own(url: str) -> None:
    lies = Ask("lies", "/lie", b"hello", check=GOOD.check)
    refused = Ask("refused", "/echo", status=404)
    right, wrong, other, none = send_all(url, [GOOD, lies, refused, HANGS_UP], connections=2)
    assert (right.status, right.problem, right.batch_size) == (200, "", 3)
    assert wrong.problem == "not hello: b'bye'"
    assert wrong.is_wrong
    assert other.problem.startswith("answered 200 instead of 404")
    assert (none.status, none.problem) == (0, "no answer (ServerDisconnectedError)")


def test_no_more_requests_are_under_way_than_connections(url: str) -> None:
    started = time.perf_counter()
    exchanges = send_all(url, [Ask("slow", "/sleep")] * 4, connections=2)
    assert time.perf_counter() - started >= 2.0
    assert [exchange.problem for exchange in exchanges] == [""] * 4


def test_who_waits_too_long_has_no_answer(url: str) -> None:
    (exchange,) = send_all(url, [Ask("slow", "/sleep")], connections=1, timeout_s=0.2)
    assert (exchange.status, exchange.problem) == (0, "no answer (TimeoutError)")
    assert exchange.latency_s >= 0.2


@pytest.mark.parametrize("path", ["/a//b/../%2e%2e/%zz", "/predictions/%00", "/x?a=%20&&"])
def test_paths_are_sent_as_they_stand(url: str, path: str) -> None:
    ask = Ask("odd path", path, check=lambda body: "" if body.decode() == path else f"sent as {body!r}")
    (exchange,) = send_all(url, [ask], connections=1)
    assert exchange.problem == ""


def test_traffic_keeps_its_rate_and_takes_in_what_is_inserted(url: str) -> None:
    started = time.perf_counter()
    with Traffic(url, itertools.repeat(GOOD), rate=200) as traffic:
        time.sleep(0.5)
        traffic.insert(HANGS_UP)
        time.sleep(0.5)
    assert 50 <= len(traffic.exchanges) <= 320 * (time.perf_counter() - started)
    (inserted,) = (exchange for exchange in traffic.exchanges if exchange.problem)
    assert inserted.ask is HANGS_UP


def test_only_good_requests_are_sent_again_and_what_came_first_is_kept(url: str) -> None:
    refused = Ask("refused at first", "/refuse", check=GOOD.check)
    hostile = Ask("hostile", "/hang-up", good=False)
    with Traffic(url, iter([refused, hostile]), rate=50, tries=2) as traffic:
        time.sleep(0.3)
    second, other = sorted(traffic.exchanges, key=lambda exchange: exchange.due)
    assert (second.problem, second.first.status) == ("", 503)
    assert (other.status, other.earlier) == (0, ())


def test_a_fault_of_the_driver_itself_is_not_lost(url: str) -> None:
    def fail() -> Iterator[Ask]:
        yield GOOD
        raise ValueError("no more to ask")

    with pytest.raises(ValueError, match="no more to ask"), Traffic(url, fail(), rate=100):
        time.sleep(0.3)


def test_connections_are_held_until_the_server_closes_them() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=8) as server, ThreadPoolExecutor(1) as holder:
        server.settimeout(5)
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        left_open = holder.submit(hold_connections, url, 4, None, 60.0)
        accepted = [server.accept()[0] for _ in range(4)]
        assert accepted[1].recv(100) == b"POST / HTTP/1.1\r\nHost: localhost\r\n"
        for connection in accepted:
            connection.close()
        assert left_open.result(30) == 0
        left_open = holder.submit(hold_connections, url, 2, None, 0.0)
        assert left_open.result(30) == 2
