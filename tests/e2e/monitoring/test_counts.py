"""Requests of which each one's fate is known, and what the metrics say of them."""

import io
from collections import Counter
from functools import partial
from typing import Any

import PIL.Image
import psutil
import requests

from e2e.test_requests import GARBAGE, OCTETS
from mar_tools.monitoring.worker_files import KINDS
from mar_tools.serving.metrics_exporter import metrics_folder
from mar_tools.waiting import wait_until

from .conftest import ALLOWED, MAX_BODY, Metrics, Monitored

PATIENCE_S = 60
JSON = {"Content-Type": "application/json"}
PREDICT = "/predictions/digits"


def bomb() -> bytes:
    """One that names more pixels than any archive allows."""
    buffer = io.BytesIO()
    PIL.Image.new("1", (13_376, 13_376)).save(buffer, "PNG")
    return buffer.getvalue()


def both(seven: bytes) -> dict[str, Any]:
    return {"a": ("a.png", seven, "image/png"), "b": ("b.png", GARBAGE, "image/png")}


def ask_100_times(monitored: Monitored, seven: bytes) -> Counter[tuple[str, str]]:
    """Return how many answers of each client had each status."""
    wide, front = bomb(), monitored.front
    sent: list[tuple[int, dict[str, Any]]] = [
        (50, {"data": seven, "headers": OCTETS}),
        (10, {"files": both(seven)}),
        (15, {"data": GARBAGE, "headers": OCTETS}),
        (8, {"data": b"{", "headers": JSON}),
        (7, {"data": seven, "headers": {**OCTETS, "X-Inference-Options": "top_j=3"}}),
        (6, {"data": b"%PDF-1.4 " + bytes(100), "headers": OCTETS}),
        (4, {"data": wide, "headers": OCTETS}),
    ]
    seen: Counter[tuple[str, str]] = Counter()
    for count, arguments in sent:
        for _ in range(count):
            seen["first", str(front.request("POST", PREDICT, **arguments).status_code)] += 1
    assert sum(seen.values()) == 100
    return seen


def ask_in_vain(monitored: Monitored, seven: bytes) -> Counter[tuple[str, str]]:
    """Ask what the front refuses: without a key, too much, too often."""
    front, seen = monitored.front, Counter[tuple[str, str]]()
    for _ in range(8):
        answer = front.request("POST", PREDICT, {**OCTETS, "X-Api-Key": "wrong"}, data=seven)
        seen["none", str(answer.status_code)] += 1
    greedy = {"X-Api-Key": front.add_client("greedy")}
    for _ in range(3):
        answer = front.request("POST", PREDICT, {**OCTETS, **greedy}, data=bytes(MAX_BODY + 1))
        seen["greedy", str(answer.status_code)] += 1
    with requests.Session() as session:
        for _ in range(ALLOWED + 25):
            answer = session.get(
                f"{front.front.url}/v2", headers=greedy, verify=str(front.front.certificate), timeout=30
            )
            seen["greedy", str(answer.status_code)] += 1
    return seen


def test_every_count_of_100_requests_with_known_faults_is_exact(monitored: Monitored, seven: bytes) -> None:
    before = monitored.scrape()
    seen = ask_100_times(monitored, seven)
    workers = monitored.scrape().since(before)
    assert workers.by("vision_requests_total", "model", "version", "status", "error") == {
        ("digits", "1.0", "200", ""): 60,
        ("digits", "1.0", "400", "ImageDecodeError"): 15,
        ("digits", "1.0", "400", "MalformedRequestError"): 8,
        ("digits", "1.0", "422", "InvalidOptionError"): 7,
        ("digits", "1.0", "415", "UnsupportedFormatError"): 6,
        ("digits", "1.0", "413", "PayloadTooLargeError"): 4,
    }
    assert workers.by("vision_images_total", "outcome") == {
        ("predicted",): 60,
        ("ImageDecodeError",): 25,
        ("MalformedRequestError",): 8,
        ("InvalidOptionError",): 7,
        ("UnsupportedFormatError",): 6,
        ("PayloadTooLargeError",): 4,
    }
    batches = workers.get("vision_batch_size_count")
    assert workers.get("vision_batch_size_sum") == workers.get("vision_request_queue_seconds_count") == 100
    assert workers.get("vision_batch_duration_seconds_count") == batches
    assert workers.get("vision_stage_duration_seconds_count", stage="inference") <= batches

    seen += ask_in_vain(monitored, seven)
    statuses = {status for _, status in seen}
    assert statuses >= {"200", "400", "401", "413", "415", "422", "429"}

    def front_agrees() -> bool:  # nginx writes a line when it has sent the answer
        counted = monitored.scrape().since(before).by("vision_front_requests_total", "client", "status")
        return counted == {labels: float(count) for labels, count in seen.items()}

    assert wait_until(front_agrees, PATIENCE_S), seen
    assert monitored.scrape().since(before).get("vision_requests_total") == 100


def test_no_request_makes_a_label(monitored: Monitored, seven: bytes) -> None:
    before = names_and_labels(monitored.scrape())
    for path in ("/predictions/nothing", "/predictions/digits/9.9", "/predictions/" + "x" * 100, "/v2/models/y/infer"):
        monitored.service.request("POST", path, data=seven, headers=OCTETS)
        monitored.front.request("POST", path, data=seven, headers={"X-Api-Key": "z" * 43})
    monitored.service.post("digits", seven, {**OCTETS, "X-Request-Start": "t=nan"})
    monitored.service.post("digits", seven, {**OCTETS, "X-Request-Start": "t=1e400"})
    assert names_and_labels(monitored.scrape()) - before <= {
        ("vision_front_requests_total", frozenset({("client", "none"), ("status", "401")})),
        *((f"vision_front_{way}_bytes_total", frozenset({("client", "none")})) for way in ("received", "sent")),
    }


def names_and_labels(metrics: Metrics) -> set[Any]:
    return {key for key in metrics.values if key[0].startswith("vision_")}


def test_workers_that_are_killed_lower_no_count_and_their_files_become_one(monitored: Monitored, seven: bytes) -> None:
    folder = metrics_folder(monitored.service.server.temporary)
    before = monitored.scrape()
    kills = 3
    for number in range(1, kills + 1):
        pids = monitored.service.worker_pids("digits")
        psutil.Process(pids[0]).kill()
        assert wait_until(partial(are_ready, monitored, set(pids)), PATIENCE_S, 0.5)
        now = monitored.scrape().since(before)
        assert now.get("vision_worker_restarts_total") == now.get("vision_worker_starts_total") == number
        assert all(value >= 0 for (name, _), value in now.values.items() if name.endswith(("_total", "_count")))
    monitored.service.post("digits", seven, OCTETS)
    assert monitored.scrape().since(before).get("vision_requests_total", status="200") == 1
    files = [path.name for path in folder.glob("*.db")]
    assert len(files) <= len(KINDS) * 4, files  # two workers, one that has ended, and the sums


def are_ready(monitored: Monitored, before: set[int]) -> bool:
    """Return whether both workers are ready, of which one was not there before."""
    entries = monitored.service.server.client.describe("digits")
    workers = [worker for entry in entries for worker in entry["workers"]]
    new = {worker["pid"] for worker in workers} - before
    return len(new) == 1 and all(worker["status"] == "READY" for worker in workers)
