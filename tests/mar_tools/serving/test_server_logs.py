import json
from pathlib import Path

import pytest

from mar_tools.serving.logs import ServerLogs, log_options
from mar_tools.serving.setting_names import check_settings
from vision_serving.errors import ConfigError

OF_LAME = "2026-01-01T00:00:00,000 [INFO ] W-9001-lame_1.0-stdout MODEL_LOG - "
OF_DIGITS = "2026-01-01T00:00:00,000 [INFO ] W-9000-digits_1.0-stdout MODEL_LOG - "


def write_log(folder: Path, *lines: str, name: str = "model_log.log") -> ServerLogs:
    with (folder / name).open("a") as log:
        log.writelines(f"{line}\n" for line in lines)
    return ServerLogs(folder)


def test_a_model_that_says_why_it_cannot_load_is_told_by_its_reason(tmp_path: Path) -> None:
    logs = write_log(
        tmp_path,
        f"{OF_DIGITS}Torch worker started.",
        f"{OF_LAME}Failed to load model lame, exception unknown backend 'openvimo'",
        f"{OF_LAME}Traceback (most recent call last):",
        f"{OF_LAME}Backend worker process died.",
        f"{OF_LAME}Traceback (most recent call last):",
        f"{OF_LAME}RuntimeError: 500 - Unknown exception",
    )
    assert logs.load_failure("lame", "1.0") == "unknown backend 'openvimo'"
    assert logs.load_failure("lame", "2.0") is None
    assert logs.load_failure("digits", "1.0") is None


def test_a_worker_that_died_of_another_error_is_told_by_the_end_of_its_traceback(tmp_path: Path) -> None:
    logs = write_log(
        tmp_path,
        f"{OF_LAME}Backend worker process died.",
        f"{OF_LAME}Traceback (most recent call last):",
        f'{OF_LAME}  File "x.py", line 1, in <module>',
        f"{OF_LAME}ModuleNotFoundError: No module named 'nothing'",
    )
    assert logs.load_failure("lame", "1.0") == "ModuleNotFoundError: No module named 'nothing'"


def test_memory_that_ran_out_at_load_is_a_reason_too(tmp_path: Path) -> None:
    logs = write_log(tmp_path, f"{OF_LAME}Load model lame cuda OOM, exception CUDA out of memory")
    assert logs.load_failure("lame", "1.0") == "CUDA out of memory"


def test_what_earlier_starts_wrote_does_not_count_unless_the_log_began_anew(tmp_path: Path) -> None:
    failure = f"{OF_LAME}Failed to load model lame, exception "
    before = write_log(tmp_path, failure + "of long ago, and in more words").measure()
    assert ServerLogs(tmp_path, before).load_failure("lame", "1.0") is None
    (tmp_path / "model_log.log").write_text(f"{failure}now\n")  # rotated
    assert ServerLogs(tmp_path, before).load_failure("lame", "1.0") == "now"


def test_an_archive_that_the_frontend_refuses_is_told_by_its_exception(tmp_path: Path) -> None:
    logs = write_log(
        tmp_path,
        "2026-01-01T00:00:00,000 [WARN ] main ModelServer - Failed to load model: /store/odd.mar",
        "org.pytorch.serve.archive.model.InvalidModelException: Missing handler",
        name="ts_log.log",
    )
    assert logs.refusal("odd.mar") == "org.pytorch.serve.archive.model.InvalidModelException: Missing handler"
    assert logs.refusal("d.mar") is None


def as_json(line: str, exception: str = "") -> str:
    head, _, message = line.partition(" - ")
    time, _, _, thread, logger = head.split()
    entry = {"time": time, "level": "INFO", "thread": thread, "logger": logger, "message": message}
    return json.dumps({**entry, "exception": exception}, separators=(",", ":"))


def test_logs_in_json_tell_the_same_reasons(tmp_path: Path) -> None:
    logs = write_log(
        tmp_path,
        as_json(f"{OF_LAME}Failed to load model lame, exception unknown backend 'openvimo'"),
        '{"time":"2026-01-01T00:00:00,000","level":"INFO","thre',
        '{"time": "2026-01-01T00:00:00.000+00:00", "event": "request_failed", "id": "x"}',
        as_json(f"{OF_DIGITS}Backend worker process died."),
        as_json(f"{OF_DIGITS}ModuleNotFoundError: No module named 'nothing'"),
    )
    refused = as_json("2026 [WARN ] main ModelServer - Failed to load model: /store/odd.mar", "A.BError: odd\n\tat x")
    write_log(tmp_path, refused, name="ts_log.log")
    assert logs.load_failure("lame", "1.0") == "unknown backend 'openvimo'"
    assert logs.load_failure("digits", "1.0") == "ModuleNotFoundError: No module named 'nothing'"
    assert logs.refusal("odd.mar") == "A.BError: odd"


def test_the_form_of_logs_is_a_setting_that_java_gets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JDK_JAVA_OPTIONS", "-Dmine=1")
    assert log_options({}) == log_options({"vision_logs": "text"}) == {}
    assert log_options({"vision_logs": "json"}) == {"JDK_JAVA_OPTIONS": "-Dmine=1 -Dvision_logs=json"}
    assert log_options({"vision_logs": "text"}, to_stdout=True) == {"JDK_JAVA_OPTIONS": "-Dmine=1 -Dvision_stdout=info"}
    both = "-Dmine=1 -Dvision_stdout=info -Dvision_logs=json"
    assert log_options({}, to_stdout=True) == {"JDK_JAVA_OPTIONS": both}
    with pytest.raises(ConfigError, match=r"vision_logs: expected one of .*, got 'yaml'"):
        check_settings({"vision_logs": "yaml"})
    with pytest.raises(ConfigError, match="did you mean 'vision_logs'"):
        check_settings({"vision_log": "json"})
