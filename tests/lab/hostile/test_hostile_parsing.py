"""Any bytes as a request: an answer or an error of our own, and soon. Row A6 of lab/run_chaos.py tries millions."""

import random
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lab.hostile.attempts import REQUEST_FORMS, SlowRequestError, attempt_request, read_request
from lab.hostile.documents import DOCUMENTS, NESTED
from lab.hostile.fuzzing import read_output, write_corpus
from lab.hostile.pictures import DAMAGED, FORMATS, ODD, whole
from vision_serving.errors import RequestError
from vision_serving.requests.payload import parse_payload

forms = st.integers(0, len(REQUEST_FORMS) - 1)
pictures = st.sampled_from([*map(whole, FORMATS), *(ODD[name]() for name in ODD if "16384" not in name)])
documents = st.sampled_from([document.body for document in DOCUMENTS.values() if len(document.body) < 20_000])


@st.composite
def mutated(draw: st.DrawFn, files: st.SearchStrategy[bytes]) -> bytes:
    """A file of which a piece is replaced, doubled or left out."""
    data = draw(files)
    start, end = sorted((draw(st.integers(0, len(data))), draw(st.integers(0, len(data)))))
    piece = draw(st.sampled_from([b"", data[start:end] * 2]) | st.binary(max_size=20))
    return data[:start] + piece + data[end:]


@settings(max_examples=300, deadline=None)
@given(form=forms, data=st.binary(max_size=300) | mutated(pictures) | mutated(documents))
@example(form=1, data=b'{"inputs": [{"datatype": "BYTES", "shape": ' + NESTED + b"}]}")
@example(form=1, data=b'{"instances": [{}], "parameters": {"class_filter": ' + NESTED + b"}}")
@example(form=3, data=b"class_filter\0" + b"a," * 1_000_000)
@example(form=3, data=b"class_thresholds\0" + b"a:0.1," * 1_000_000)
def test_any_request_is_read_or_refused(form: int, data: bytes) -> None:
    attempt_request(bytes((form,)) + data)


@settings(max_examples=200, deadline=None)
@given(headers=st.dictionaries(st.text(max_size=20), st.text(max_size=60), max_size=5), options=st.text(max_size=60))
def test_any_headers_are_read_or_refused(headers: dict[str, str], options: str) -> None:
    read_request({"body": whole("GIF")}, {**headers, "X-Inference-Options": options})


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_picture_is_decoded_or_refused(name: str) -> None:
    choose = random.Random(name)
    for _ in range(40):
        attempt_request(b"\0" + DAMAGED[name](choose))


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_document_that_is_no_request_says_why(name: str) -> None:
    entry = DOCUMENTS[name]
    found = parse_payload({"body": entry.body}, entry.headers).images[0]
    if entry.error in ("MalformedRequestError", "PayloadTooLargeError") and isinstance(found, RequestError):
        assert type(found).__name__ == entry.error


def test_what_takes_too_long_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lab.hostile.attempts.MAX_S", -1.0)
    with pytest.raises(SlowRequestError):
        attempt_request(b"\0x")


def test_the_fuzzer_begins_with_every_form(tmp_path: Path) -> None:
    write_corpus(tmp_path)
    files = [path.read_bytes() for path in tmp_path.iterdir()]
    assert {data[0] for data in files} == set(range(len(REQUEST_FORMS)))
    for data in files:
        attempt_request(data)


def test_the_output_of_the_fuzzer_is_read() -> None:
    text = "#2 INITED cov: 100 ft: 5\n#9 DONE cov: 2345 ft: 9\nstat::number_of_executed_units: 1234\n"
    found = read_output(text + "stat::slowest_unit_time_sec: 1\n", 0)
    assert (found.executions, found.edges, found.slowest_s, found.failures) == (1234, 2345, 1, ())
    assert read_output("ERROR: libFuzzer: deadly signal", 77).failures == ("ERROR: libFuzzer: deadly signal",)
