"""Two builds of one model do not meet."""

from pathlib import Path

import pytest

from mar_tools.locking import building
from vision_serving.errors import ConfigError


def test_a_second_build_of_a_model_is_refused_while_the_first_one_runs(tmp_path: Path) -> None:
    with building(tmp_path, "digits"):
        with pytest.raises(ConfigError, match="digits: another build works there"), building(tmp_path, "digits"):
            pass
        with building(tmp_path, "other"):
            pass
    with building(tmp_path, "digits"):
        pass
