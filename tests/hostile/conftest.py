"""One server for all: the rows of docs/reliability.md in a short form."""

from collections.abc import Iterator

import pytest

from mar_tools.reliability.hostile_server import Subject, build_hostile_archive, open_subject


@pytest.fixture(scope="session")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Subject]:
    with open_subject(build_hostile_archive(tmp_path_factory.mktemp("hostile"))) as subject:
        yield subject
