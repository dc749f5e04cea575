from pathlib import Path

from mar_tools.serving.config_file import with_values
from mar_tools.serving.ports import free_addresses
from mar_tools.serving.server import Server


def test_stopping_what_does_not_run_leaves_the_tokens_of_another_server(tmp_path: Path) -> None:
    (tmp_path / "config.properties").write_text(with_values("", free_addresses()))
    (tmp_path / "key_file.json").write_text("{}")
    assert not Server(tmp_path / "config.properties").stop()
    assert (tmp_path / "key_file.json").exists()
