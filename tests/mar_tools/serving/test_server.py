from pathlib import Path

from mar_tools.serving.server import Server


def test_stopping_what_does_not_run_leaves_the_tokens_of_another_server(tmp_path: Path) -> None:
    (tmp_path / "config.properties").touch()
    (tmp_path / "key_file.json").write_text("{}")
    assert not Server(tmp_path / "config.properties").stop()
    assert (tmp_path / "key_file.json").exists()
