"""One request never hurts another, shown on batches that they demonstrably shared."""

from concurrent.futures import ThreadPoolExecutor

from .conftest import Served
from .test_requests import GARBAGE, OCTETS, best_label


def post_together(served: Served, bodies: list[bytes]) -> list[tuple[int, str, int]]:
    """(status, best label or error type, batch size) of requests that are sent at once, in order."""
    token = served.token

    def post(body: bytes) -> tuple[int, str, int]:
        response = served.post("digits", body, {**OCTETS, "Authorization": f"Bearer {token}"})
        answer = response.json()
        label = best_label(answer) if "classes" in answer else answer["type"]
        return response.status_code, label, int(response.headers["X-Batch-Size"])

    with ThreadPoolExecutor(len(bodies)) as pool:
        return list(pool.map(post, bodies))


def test_a_bad_image_gets_400_and_its_batch_neighbours_200(served: Served, seven: bytes) -> None:
    for _ in range(5):  # the first worker call of a burst may take a single request; one shared batch is the proof
        answers = post_together(served, [seven, GARBAGE, seven, seven])
        assert [answer[:2] for answer in answers] == [(200, "7"), (400, "ImageDecodeError"), (200, "7"), (200, "7")]
        if all(size == 4 for *_, size in answers):
            return
    raise AssertionError("no burst shared one batch")


def test_fifty_concurrent_requests_a_quarter_garbage(served: Served, seven: bytes) -> None:
    before = served.worker_pids("digits")
    bodies = [GARBAGE if index % 4 == 3 else seven for index in range(50)]
    answers = post_together(served, bodies)
    expected = [(400, "ImageDecodeError") if body is GARBAGE else (200, "7") for body in bodies]
    assert [answer[:2] for answer in answers] == expected
    assert max(size for *_, size in answers) > 1
    assert served.worker_pids("digits") == before
