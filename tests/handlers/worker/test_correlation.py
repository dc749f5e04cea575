import time

import pytest

from vision_serving.worker.correlation import Parent, read_correlation, read_parent

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.mark.parametrize("name", ["X-Request-Id", "x-request-id", "X-REQUEST-ID"])
def test_the_callers_id_counts(name: str) -> None:
    found = read_correlation({name: "order-17/scan:2"}, "57c2-of-torchserve")
    assert (found.id, found.server_id) == ("order-17/scan:2", "57c2-of-torchserve")


@pytest.mark.parametrize("odd", ["", "x" * 129, "a\nb", "\x1b[31m", 'a"b', "-a", "caf\u00e9", "a b"])
def test_an_odd_id_is_replaced_by_torchserves_own(odd: str) -> None:
    assert read_correlation({"X-Request-Id": odd}, "57c2").id == "57c2"
    assert read_correlation({"X-Request-Id": odd}).id == ""


def test_headers_of_parts_are_no_ids() -> None:
    assert read_correlation({"x-request-id": {"content-type": "image/png"}}, None).id == ""


@pytest.mark.parametrize(("flags", "sampled"), [("00", False), ("01", True), ("03", True), ("02", False)])
def test_a_parent_says_whether_it_is_sampled(flags: str, sampled: bool) -> None:
    assert read_parent(f"00-{TRACE}-{SPAN}-{flags}") == Parent(TRACE, SPAN, sampled)


@pytest.mark.parametrize(
    "odd",
    ["", f"00-{TRACE}-{SPAN}", f"01-{TRACE}-{SPAN}-01", f"00-{TRACE.upper()}-{SPAN}-01", f"00-{'0' * 32}-{SPAN}-01",
     f"00-{TRACE}-{'0' * 16}-01", f"00-{TRACE}-{SPAN}-01\n", f"00-{TRACE}-{SPAN}-1"],
)  # fmt: skip
def test_no_other_text_is_a_parent(odd: str) -> None:
    assert read_parent(odd) is None


@pytest.mark.parametrize(
    ("state", "kept"),
    [
        ("rojo=00f067aa0ba902b7,congo=t61rcWkgMzE", True), ("a=1", True), ("1@b=c d", True), ("a=" + "x" * 510, True),
        ("a=" + "x" * 511, False), (",".join(["a=1"] * 33), False), ("A=1", False), ("a=1,", False), ("a=b=c", False),
        ("a=\x1b[31m", False), ("a=caf\u00e9", False), ("a=1\n", False), ("=1", False), ("a= ", False),
    ],
)  # fmt: skip
def test_what_other_tracing_systems_added_is_kept_where_it_is_plain(state: str, kept: bool) -> None:
    found = read_correlation({"traceparent": f"00-{TRACE}-{SPAN}-01", "tracestate": state}).parent
    assert found is not None
    assert found.state == (state if kept else "")
    assert read_correlation({"traceparent": "odd", "tracestate": state}).parent is None


def test_times_of_the_front_are_read() -> None:
    now = time.time()
    found = read_correlation({"X-Request-Arrived": f"t={now - 2:.3f}", "X-Request-Start": f"t={now - 1:.3f}"})
    assert found.arrived_s == pytest.approx(now - 2, abs=0.001)
    assert found.started_s == pytest.approx(now - 1, abs=0.001)


@pytest.mark.parametrize("odd", ["", "t=", "t=nan", "t=-1", "t=1e9", "1700000000", "t=0", "t=99999999999", "t=1 "])
def test_no_other_time_counts(odd: str) -> None:
    assert read_correlation({"X-Request-Start": odd}).started_s is None
