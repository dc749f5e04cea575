"""The command, before a server that finds the same in every picture."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pyarrow.parquet as pq
import pytest
from conftest import RunHere
from http_fakes import Answer, Request, serve_requests
from PIL import Image

from mar_tools.serving.ports import find_free_ports

BOX = {"class_id": 1, "label": "cat", "score": 0.9, "box": [1.0, 2.0, 3.0, 4.0]}
FOUND = json.dumps({"detections": [BOX], "image": {"width": 8, "height": 8}}).encode()
OUTPUTS = [("csv", "found.csv"), ("json-lines", "found.jsonl"), ("table", "found.txt"), ("coco", "found.json")]


@pytest.fixture
def config(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "config.properties"
    with serve_requests(lambda request: Answer(200, FOUND)) as url:
        path.write_text(f"inference_address={url}\ndisable_token_authorization=true\n")
        yield path


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    file = tmp_path / "photo.png"
    file.touch()
    return file


@pytest.mark.parametrize(("form", "name"), OUTPUTS)
def test_an_earlier_result_is_never_replaced(
    config: Path, photo: Path, run_here: RunHere, form: str, name: str
) -> None:
    output = photo.parent / name
    command = ("predict_images.py", "cats", photo, "--config", config, "--format", form, "--output", output)
    assert run_here(*command).returncode == 0
    first = output.read_bytes()
    assert b"cat" in first or form == "coco"
    again = run_here(*command)
    assert again.returncode == 1
    assert again.stderr.startswith(f"error: {output}: this file is there, and would be replaced")
    assert output.read_bytes() == first


def test_the_list_of_images_of_an_earlier_result_is_not_replaced_either(
    config: Path, photo: Path, run_here: RunHere
) -> None:
    (photo.parent / "found.images.json").write_text("earlier")
    output = photo.parent / "found.json"
    command = ("predict_images.py", "cats", photo, "--config", config, "--format", "coco", "--output", output)
    refused = run_here(*command)
    assert (refused.returncode, "found.images.json: this file is there" in refused.stderr) == (1, True)
    assert not output.exists()


def test_a_run_without_any_answer_leaves_no_file_that_would_stand_in_the_way(photo: Path, run_here: RunHere) -> None:
    [closed] = find_free_ports(1)
    config, output = photo.parent / "config.properties", photo.parent / "found.csv"
    config.write_text(f"inference_address=http://127.0.0.1:{closed}\ndisable_token_authorization=true\n")
    finished = run_here("predict_images.py", "cats", photo, "--config", config, "--format", "csv", "--output", output)
    assert (finished.returncode, "no server answers" in finished.stderr) == (1, True)
    assert not output.exists()


def test_a_device_takes_what_comes(config: Path, photo: Path, run_here: RunHere) -> None:
    assert run_here("predict_images.py", "cats", photo, "--config", config, "--output", "/dev/null").returncode == 0


def test_names_that_are_no_text_or_nearly_too_long_are_predicted(
    config: Path, tmp_path: Path, run_here: RunHere
) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / os.fsdecode(b"\xe9\x1b[7m.png")).touch()
    (folder / ("x" * 250 + ".png")).touch()
    finished = run_here("predict_images.py", "cats", folder, "--config", config, "--save-annotated", tmp_path / "drawn")
    assert (finished.returncode, finished.stdout.count("cat")) == (1, 2)
    assert "2 of 2 images failed; the first, " in finished.stderr  # empty files have a prediction, but no pixels
    assert "cannot be drawn on" in finished.stderr


def test_files_of_one_name_are_told_apart_in_the_table_and_among_the_pictures(
    config: Path, tmp_path: Path, run_here: RunHere
) -> None:
    photos, single, drawn = tmp_path / "photos", tmp_path / "single.png", tmp_path / "drawn"
    for file in (photos / "a" / "x.png", photos / "b" / "x.png", photos / "y.png", single):
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(file)
    finished = run_here("predict_images.py", "cats", photos, single, "--config", config, "--save-annotated", drawn)
    assert finished.returncode == 0, finished.stderr
    rows = [line.split()[0] for line in finished.stdout.splitlines() if "cat" in line]
    assert rows == ["a/x.png", "b/x.png", "y.png", "single.png"]
    found = {str(file.relative_to(drawn)) for file in drawn.rglob("*.png")}
    assert found == {f"{name}.annotated.png" for name in rows}
    assert finished.stderr == f"4 annotated pictures in {drawn}\n"


@pytest.mark.parametrize(("form", "name"), OUTPUTS)
def test_what_was_written_where_is_told(config: Path, photo: Path, run_here: RunHere, form: str, name: str) -> None:
    output, other = photo.parent / name, photo.with_name("other.png")
    other.touch()
    finished = run_here(
        "predict_images.py", "cats", photo, other, "--config", config, "--format", form, "--output", output
    )
    assert (finished.returncode, finished.stdout, finished.stderr) == (0, "", f"2 rows in {output}\n")


def test_a_wrong_option_ends_the_run_at_once(tmp_path: Path, run_here: RunHere) -> None:
    sent, refusal = [], {"code": 422, "type": "InvalidOptionError", "message": "unknown option 'topk'"}

    def refuse(request: object) -> Answer:
        sent.append(request)
        return Answer(422, json.dumps(refusal).encode())

    photos, config, output = tmp_path / "photos", tmp_path / "config.properties", tmp_path / "found.csv"
    photos.mkdir()
    for number in range(50):
        (photos / f"{number}.png").touch()
    with serve_requests(refuse) as url:
        config.write_text(f"inference_address={url}\ndisable_token_authorization=true\n")
        options = ("--option", "topk=1", "--format", "csv", "--output", output, "--concurrency", 1)
        finished = run_here("predict_images.py", "cats", photos, "--config", config, *options)
    assert (finished.returncode, finished.stderr) == (1, "error: unknown option 'topk'\n")
    assert len(sent) < 10
    assert not output.exists()


def test_an_archive_is_found_in_the_model_store(
    archive: Path, photo: Path, run_here: RunHere, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mar_tools.command_line.MODEL_STORE", archive.parent)
    Image.new("RGB", (8, 8)).save(photo)
    finished = run_here("predict_images.py", "--archive", archive.name, photo, "--json")
    assert finished.returncode == 0, finished.stderr
    assert "classes" in json.loads(finished.stdout)


RECORDED = [("json-lines", "rows.jsonl"), ("parquet", "rows")]


def fill(folder: Path, count: int) -> Path:
    folder.mkdir()
    for number in range(count):
        (folder / f"{number:03}.png").write_bytes(b"%d" % number)
    return folder


def paths_of(output: Path) -> list[str]:
    if output.is_dir():
        return sorted(pq.read_table(output, columns=["path"])["path"].to_pylist())
    return [json.loads(line)["file"] for line in output.read_text().splitlines()]


@pytest.mark.parametrize(("form", "name"), RECORDED)
def test_a_run_whose_server_is_gone_goes_on_when_it_is_back(
    tmp_path: Path, run_here: RunHere, form: str, name: str
) -> None:
    photos, output, config = fill(tmp_path / "photos", 40), tmp_path / name, tmp_path / "config.properties"
    sent: list[bytes] = []

    def answer(request: Request) -> Answer:
        sent.append(request.body)
        return Answer(200, FOUND, {"X-Model-Version": "2.1"}) if len(sent) < 20 or is_back else Answer(0)

    command = ("predict_images.py", "cats", photos, "--config", config, "--format", form, "--output", output)
    with serve_requests(answer) as url:
        config.write_text(f"inference_address={url}\ndisable_token_authorization=true\n")
        is_back = False
        finished = run_here(*command)
        assert (finished.returncode, "rows are kept in" in finished.stderr) == (1, True), finished.stderr
        is_back, before = True, len(sent)
        finished = run_here(*command, "--resume")
    assert finished.returncode == 0, finished.stderr
    assert paths_of(output) == [str(file) for file in sorted(photos.iterdir())]
    assert len(sent) - before < 40, "what has its row is not sent again"


def test_rows_have_the_version_of_the_model_that_answered_each(tmp_path: Path, run_here: RunHere) -> None:
    photos, output = fill(tmp_path / "photos", 3), tmp_path / "rows"
    versions = {b"0": "1.0", b"1": "2.0", b"2": "2.0"}

    def answer(request: Request) -> Answer:
        return Answer(200, FOUND, {"X-Model-Version": versions.get(request.body, "1.0")})

    with serve_requests(answer) as url:
        run = ("predict_images.py", "cats", photos, "--address", url, "--format", "parquet", "--output", output)
        assert run_here(*run).returncode == 0
    rows = pq.read_table(output).to_pylist()
    assert [row["version"] for row in rows] == ["1.0", "2.0", "2.0"]
    assert [(row["model"], row["archive_sha256"], row["image"]["width"]) for row in rows] == [("cats", None, 8)] * 3


@pytest.mark.parametrize(("key", "status"), [("right", 0), ("wrong", 1), (None, 1)])
def test_any_server_is_asked_with_its_key(tmp_path: Path, run_here: RunHere, key: str | None, status: int) -> None:
    photos, output = fill(tmp_path / "photos", 3), tmp_path / "rows.jsonl"
    refusal = json.dumps({"code": 401, "type": "UnauthorizedException", "message": "no such key"}).encode()

    def answer(request: Request) -> Answer:
        return Answer(200, FOUND) if request.headers.get("Authorization") == "Bearer right" else Answer(401, refusal)

    with serve_requests(answer) as url:
        arguments = ("--address", url, "--json", "--output", output, *(["--key", key] if key else []))
        finished = run_here("predict_images.py", "cats", photos, *arguments)
    assert finished.returncode == status, finished.stderr
    assert output.exists() == (status == 0)
    assert status == 0 or finished.stderr == "error: cats: the server refuses: no such key\n"


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_server_is_waited_for(tmp_path: Path, run_here: RunHere, status: int) -> None:
    photos, output = fill(tmp_path / "photos", 3), tmp_path / "rows.jsonl"
    refused: list[bytes] = []

    def answer(request: Request) -> Answer:
        if len(refused) < 8:
            refused.append(request.body)
            return Answer(status, b'{"code": %d, "type": "BusyError", "message": "busy"}' % status)
        return Answer(200, FOUND)

    with serve_requests(answer) as url:
        finished = run_here("predict_images.py", "cats", photos, "--address", url, "--json", "--output", output)
    assert finished.returncode == 0, finished.stderr
    assert len(paths_of(output)) == 3
    assert "BusyError" not in output.read_text()


def test_pictures_of_an_object_store_are_predicted(config: Path, tmp_path: Path, run_here: RunHere) -> None:
    fsspec.filesystem("memory").pipe_file("/store/a.png", b"x")
    run = ("predict_images.py", "cats", "memory://store", "--config", config, "--json")
    assert run_here(*run, "--output", tmp_path / "rows.jsonl").returncode == 0
    assert paths_of(tmp_path / "rows.jsonl") == ["memory:///store/a.png"]
    assert json.loads(run_here(*run).stdout)["file"] == "memory:///store/a.png"


def test_a_picture_that_is_given_twice_has_one_row(config: Path, photo: Path, run_here: RunHere) -> None:
    output = photo.parent / "rows.jsonl"
    run = ("predict_images.py", "cats", photo, photo, "--config", config, "--json", "--output", output)
    assert run_here(*run).returncode == 0
    assert paths_of(output) == [str(photo)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--format", "parquet"], "--format parquet needs --output"),
        (["--resume"], "--resume goes on with what --output holds"),
        (["--batch-size", "8"], "are for --archive with --output"),
        (["--key", "k"], "belong to --address"),
    ],
)
def test_options_that_would_do_nothing_are_refused(
    photo: Path, run_here: RunHere, arguments: list[str], message: str
) -> None:
    finished = run_here("predict_images.py", "cats", photo, *arguments)
    assert (finished.returncode, message in finished.stderr) == (2, True)


FINISHED = [("csv", "found.csv"), ("json-lines", "found.jsonl"), ("coco", "found.json"), ("parquet", "found")]


@pytest.mark.parametrize(("form", "name"), FINISHED)
def test_a_finished_result_that_is_resumed_says_that_it_is_complete(
    config: Path, tmp_path: Path, run_here: RunHere, form: str, name: str
) -> None:
    photos, output = fill(tmp_path / "photos", 3), tmp_path / name
    command = ("predict_images.py", "cats", photos, "--config", config, "--format", form, "--output", output)
    assert run_here(*command).returncode == 0
    before = {path: path.stat() for path in tmp_path.rglob("found*")}
    resumed = run_here(*command, "--resume")
    told = f"3 rows in {output}\n" if form == "parquet" else f"{output} is complete: it has all 3 pictures\n"
    assert (resumed.returncode, resumed.stdout, resumed.stderr) == (0, "", told)
    assert {path: path.stat() for path in tmp_path.rglob("found*")} == before


@pytest.mark.parametrize(("form", "name"), FINISHED[:3])
def test_a_finished_file_without_a_picture_is_not_called_complete(
    config: Path, tmp_path: Path, run_here: RunHere, form: str, name: str
) -> None:
    photos, output = fill(tmp_path / "photos", 3), tmp_path / name
    command = ("predict_images.py", "cats", photos, "--config", config, "--format", form, "--output", output)
    assert run_here(*command).returncode == 0
    (photos / "new.png").touch()
    resumed = run_here(*command, "--resume")
    assert resumed.returncode == 1
    assert f"finished it without 1 of these 4 pictures, the first {photos / 'new.png'}; give another" in resumed.stderr


@pytest.mark.parametrize(("form", "name"), [("csv", "found.csv"), ("json-lines", "found.jsonl")])
def test_a_finished_file_with_failed_pictures_is_resumed_with_the_status_of_its_run(
    tmp_path: Path, run_here: RunHere, form: str, name: str
) -> None:
    photos, output = fill(tmp_path / "photos", 3), tmp_path / name
    failure = json.dumps({"code": 400, "type": "ImageDecodeError", "message": "no image"}).encode()
    with serve_requests(lambda request: Answer(400, failure) if request.body == b"1" else Answer(200, FOUND)) as url:
        command = ("predict_images.py", "cats", photos, "--address", url, "--format", form, "--output", output)
        assert run_here(*command).returncode == 1
        resumed = run_here(*command, "--resume")
    assert resumed.returncode == 1
    assert resumed.stderr.splitlines()[-1] == f"error: 1 images failed, as {output} says"


@pytest.mark.parametrize(
    ("form", "content"),
    [
        ("csv", "name,score\na.png,0.5\n"),
        ("csv", "\xff\x00"),
        ("json-lines", "no json\n"),
        ("json-lines", '["a.png"]\n'),
        ("json-lines", '{"path": "a.png"}\n'),
    ],
)
def test_a_file_of_something_else_is_not_called_complete(
    config: Path, photo: Path, run_here: RunHere, form: str, content: str
) -> None:
    output = photo.parent / "found"
    output.write_text(content, encoding="latin-1")
    command = ("predict_images.py", "cats", photo, "--config", config, "--format", form, "--output", output, "--resume")
    refused = run_here(*command)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr == f"error: {output}: this file is there, and is no finished {form} file; move it away\n"
    assert output.read_text(encoding="latin-1") == content
