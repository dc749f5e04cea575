"""Requests as they go over the wire, and answers as they come back."""

import json
import threading
from pathlib import Path
from typing import Any

import pytest
from client_fakes import REFUSED, SEVEN, Recorder, client_of
from http_fakes import Answer, Request, serve_requests

from vision_client import (
    AuthorizationError,
    Classification,
    Client,
    ImageInputError,
    ModelNotFoundError,
    Prediction,
    PredictionError,
    ServerUnreachableError,
)

UNREADABLE = Answer(400, b'{"code": 400, "type": "ImageDecodeError", "message": "not an image"}')
UNKNOWN = Answer(404, b'{"code": 404, "type": "ModelNotFoundException", "message": "Model not found: model"}')


def test_an_image_goes_out_as_it_is_with_token_and_options() -> None:
    recorder = Recorder()
    options = {"top_k": 3, "class_filter": ["Käse", 7], "thresholds": {"a": 0.3, 7: 1}, "other": None, "flag": True}
    with client_of(recorder, "secret") as client:
        answer = client.predict("a b", b"\xff\x00image", model_version="2/1", **options)
    (request,) = recorder.requests
    assert (request.method, request.path, request.body) == ("POST", "/predictions/a%20b/2%2F1", b"\xff\x00image")
    assert request.headers["Authorization"] == "Bearer secret"
    assert request.headers["Content-Type"] == "application/octet-stream"
    assert request.headers["Accept"] == "application/json"
    written = request.headers["X-Inference-Options"].encode("latin-1").decode()
    assert written == "top_k=3; class_filter=Käse,7; thresholds=a:0.3,7:1; flag=true"
    assert isinstance(answer, Classification)
    assert (answer.top.class_id, answer.top.label, answer.top.score) == (7, "7", 0.9)


def test_without_options_and_token_there_are_no_such_headers() -> None:
    recorder = Recorder()
    with client_of(recorder) as client:
        client.predict("model", b"image")
    assert not {"X-Inference-Options", "Authorization"} & recorder.requests[0].headers.keys()


@pytest.mark.parametrize(
    "options",
    [{"class_filter": "a;b=c"}, {"class_filter": ["tabby, tabby cat"]}, {"class_filter": "a\r\nX-Other: b"}],
    ids=["semicolon", "comma", "line break"],
)
def test_an_option_that_a_header_cannot_carry_is_refused(options: dict[str, Any]) -> None:
    with Client() as client, pytest.raises(ValueError, match=r"class_filter: .* the header cannot carry"):
        client.predict("model", b"image", **options)


def test_answers_stand_in_the_order_of_the_images_whatever_the_order_of_their_arrival() -> None:
    second_is_answered = threading.Event()

    def answer(request: Request) -> Answer:
        if request.body == b"1":
            assert second_is_answered.wait(10)
        else:
            second_is_answered.set()
        label = request.body.decode()
        return Answer(200, json.dumps({"classes": [{"class_id": 0, "label": label, "score": 1}]}).encode())

    with client_of(answer, concurrency=2) as client:
        answers = client.predict("model", (label.encode() for label in ("1", "2", "3")))
    assert [a.top.label for a in answers if isinstance(a, Classification)] == ["1", "2", "3"]


def test_no_images_are_no_request() -> None:
    with Client("http://127.0.0.1:1") as client:
        assert client.predict("model", []) == []


def test_a_progress_bar_leaves_the_answers_and_what_is_no_terminal_alone(capfd: pytest.CaptureFixture[str]) -> None:
    with client_of(Recorder()) as client:
        assert len(client.predict("model", [b"image"] * 3, progress=True)) == 3
    assert capfd.readouterr() == ("", "")


def test_failed_images_stand_in_their_places(tmp_path: Path) -> None:
    images: list[Any] = [b"good", b"bad", tmp_path / "none.jpg", 3]
    with client_of(lambda request: UNREADABLE if request.body == b"bad" else SEVEN) as client:
        good, bad, missing, wrong = client.predict("model", images)
    assert isinstance(good, Classification)
    assert isinstance(bad, PredictionError)
    assert (bad.code, bad.type, bad.message) == (400, "ImageDecodeError", "not an image")
    assert isinstance(missing, ImageInputError)
    assert "none.jpg" in missing.message
    assert isinstance(wrong, ImageInputError)
    assert "got int" in wrong.message


def test_images_that_all_fail_for_their_own_reasons_are_not_raised() -> None:
    with client_of(lambda request: UNREADABLE) as client:
        assert [type(answer) for answer in client.predict("model", [b"1", b"2"])] == [PredictionError] * 2


def test_what_no_image_can_escape_is_raised_and_the_rest_is_not_sent() -> None:
    recorder = Recorder(lambda request: UNKNOWN)
    said = "404 ModelNotFoundException: Model not found: model; on the server"
    with client_of(recorder, concurrency=1) as client, pytest.raises(ModelNotFoundError, match=said):
        client.predict("model", [b"image"] * 50)
    assert len(recorder.requests) == 1


def test_what_was_predicted_before_such_an_error_is_not_lost() -> None:
    recorder = Recorder(lambda request: UNKNOWN if request.body == b"3" else SEVEN)
    with client_of(recorder, concurrency=1) as client:
        answers = client.predict("model", [b"1", b"2", b"3", b"4"])
    assert [type(answer) for answer in answers] == [Classification, Classification, *[ModelNotFoundError] * 2]
    assert len(recorder.requests) == 3


def test_without_a_server_the_message_says_how_to_start_it() -> None:
    with serve_requests(lambda request: UNKNOWN) as url:
        pass
    with Client(url, retries=0) as client:
        with pytest.raises(ServerUnreachableError, match=f"no server answers at {url}; start it"):
            client.predict("model", [b"1", b"2"])
        with pytest.raises(ServerUnreachableError):
            client.health()


def test_an_answer_of_another_kind_is_kept_as_it_came() -> None:
    document = {"keypoints": [[1, 2]], "image": {"width": 3, "height": 4}}
    with client_of(lambda request: Answer(200, json.dumps(document).encode())) as client:
        answer = client.predict("model", b"image")
    assert type(answer) is Prediction
    assert answer.extra == document


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"7", b'{"classes": [{"label": "7"}]}', b'{"classes": null}'])
def test_an_answer_that_is_no_prediction_is_said(body: bytes) -> None:
    said = "200 UnexpectedAnswer: expected a prediction, got"
    with client_of(lambda request: Answer(200, body)) as client, pytest.raises(PredictionError, match=said):
        client.predict("model", b"image")


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (Answer(413, b""), "413 HTTPError: .*; send the image in a smaller size"),
        (Answer(502, b"<html>"), "502 HTTPError: Bad Gateway"),
        (Answer(401, b""), "401 HTTPError: Unauthorized; give Client"),
        (Answer(308, b"", {"Location": "https://new/"}), "the server moved to https://new/"),
    ],
    ids=["413", "502", "401", "308"],
)
def test_a_body_that_is_not_ours_still_gives_an_error_that_says_what_to_do(answer: Answer, said: str) -> None:
    with client_of(lambda request: answer) as client, pytest.raises(PredictionError, match=said) as caught:
        client.predict("model", b"image")
    assert caught.value.code == answer.status


def test_a_picture_is_asked_for_by_its_type() -> None:
    recorder = Recorder(lambda request: Answer(200, b"\x89PNG", {"Content-Type": request.headers["Accept"]}))
    with client_of(recorder) as client:
        assert client.annotate("model", b"image", score_threshold=0.4) == b"\x89PNG"
        client.annotate("model", b"image", format="jpeg", model_version="1.0")
    assert [request.headers["Accept"] for request in recorder.requests] == ["image/png", "image/jpeg"]
    assert recorder.requests[0].headers["X-Inference-Options"] == "score_threshold=0.4"
    assert recorder.requests[1].path == "/predictions/model/1.0"


def test_a_picture_that_cannot_be_drawn_is_an_error() -> None:
    with client_of(lambda request: UNREADABLE) as client, pytest.raises(PredictionError, match="not an image"):
        client.annotate("model", b"image")


def test_an_archive_without_annotated_pictures_is_told_from_one_with() -> None:
    said = r"expected image/png, got application/json; .* built anew"
    with client_of(Recorder()) as client, pytest.raises(PredictionError, match=said):
        client.annotate("model", b"image")


def test_a_format_of_pictures_that_there_is_not_is_refused() -> None:
    unknown: Any = "gif"
    with Client() as client, pytest.raises(ValueError, match="expected a format"):
        client.annotate("model", b"image", format=unknown)


@pytest.mark.parametrize(
    ("answer", "status"),
    [(Answer(200, b'{"status": "Healthy"}'), "Healthy"), (Answer(500, b'{"status": "Unhealthy"}'), "Unhealthy")],
    ids=["healthy", "unhealthy"],
)
def test_health_is_what_ping_says(answer: Answer, status: str) -> None:
    recorder = Recorder(lambda request: answer)
    with client_of(recorder, "secret") as client:
        assert client.health() == status
    (request,) = recorder.requests
    assert (request.method, request.path, request.headers["Authorization"]) == ("GET", "/ping", "Bearer secret")


def test_health_needs_the_token_too() -> None:
    with client_of(lambda request: REFUSED) as client, pytest.raises(AuthorizationError, match="asks for a token"):
        client.health()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"url": "127.0.0.1:8080"}, "begins with http"),
        ({"concurrency": 0}, "concurrency=0 has to be 1 or more"),
        ({"retries": -1}, "retries=-1 0 or more"),
        ({"timeout_s": 0}, "timeout_s=0 more than 0"),
    ],
    ids=["url", "concurrency", "retries", "timeout_s"],
)
def test_settings_that_cannot_work_are_refused(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Client(**arguments)
