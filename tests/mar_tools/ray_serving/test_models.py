"""A version is served when its replica answers, and the default one before it until then."""

import asyncio
from typing import Any

import pytest

from mar_tools.ray_serving.models import ModelTable
from mar_tools.ray_serving.refusals import RefusalError


class Method:
    def __init__(self, application: "Application") -> None:
        self._application = application

    async def remote(self) -> bool:
        if not self._application.answers:
            raise RuntimeError("it has not loaded")
        return True


class Application:
    """A handle as Serve gives it, of a replica that answers or does not."""

    def __init__(self, answers: bool = True) -> None:
        self.answers = answers
        self.is_ready = Method(self)


def want(default: str, *versions: str) -> dict[str, Any]:
    return {"digits": {"default": default, "versions": {version: f"digits-{version}" for version in versions}}}


@pytest.fixture
def applications() -> dict[str, Application]:
    return {"digits-1.0": Application(), "digits-2.0": Application(answers=False)}


async def follow_for(table: ModelTable, wanted: dict[str, Any], seconds: float = 0.2) -> None:
    task = asyncio.create_task(table.follow(wanted))
    await asyncio.wait([task], timeout=seconds)
    task.cancel()


def test_a_version_that_does_not_answer_never_becomes_the_default(applications: dict[str, Application]) -> None:
    table = ModelTable(applications.__getitem__)
    asyncio.run(follow_for(table, want("1.0", "1.0")))
    assert table.is_complete
    asyncio.run(follow_for(table, want("2.0", "2.0")))
    assert not table.is_complete
    assert table.find("digits").version == "1.0"


def test_it_becomes_the_default_when_it_answers_and_the_one_before_goes(applications: dict[str, Application]) -> None:
    table = ModelTable(applications.__getitem__)
    asyncio.run(follow_for(table, want("1.0", "1.0")))
    applications["digits-2.0"].answers = True
    asyncio.run(follow_for(table, want("2.0", "2.0")))
    assert table.is_complete
    assert [each.version for each in table.versions("digits")] == ["2.0"]


def test_both_versions_answer_by_their_names(applications: dict[str, Application]) -> None:
    applications["digits-2.0"].answers = True
    table = ModelTable(applications.__getitem__)
    asyncio.run(follow_for(table, want("2.0", "1.0", "2.0")))
    assert [table.find("digits", version).version for version in (None, "1.0", "2.0")] == ["2.0", "1.0", "2.0"]


def test_what_is_unknown_is_404_and_what_starts_is_503(applications: dict[str, Application]) -> None:
    table = ModelTable(applications.__getitem__)
    asyncio.run(follow_for(table, want("1.0", "1.0", "2.0")))
    for model, version, status in (("flowers", None, 404), ("digits", "9.9", 404), ("digits", "2.0", 503)):
        with pytest.raises(RefusalError) as refused:
            table.find(model, version)
        assert refused.value.status == status


def test_a_model_that_is_not_wanted_any_more_is_unknown(applications: dict[str, Application]) -> None:
    table = ModelTable(applications.__getitem__)
    asyncio.run(follow_for(table, want("1.0", "1.0")))
    asyncio.run(follow_for(table, {"others": {"default": "1.0", "versions": {"1.0": "digits-1.0"}}}))
    assert table.names() == ["others"]
