from pathlib import Path

from mar_tools.serving.config_file import with_values
from mar_tools.serving.temporary_server import own_places
from vision_serving.worker.server_settings import STATE_KEY, state_folder


def test_a_server_beside_another_writes_beside_its_own_settings(tmp_path: Path) -> None:
    config = tmp_path / "config.properties"
    config.write_text(with_values(f"{STATE_KEY}=/var/lib/of-another\n", own_places()))
    assert state_folder(config) == tmp_path
