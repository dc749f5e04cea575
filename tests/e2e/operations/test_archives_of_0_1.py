"""A server of today's code with archives of 0.1, each with the handlers that it carried then."""

from pathlib import Path

import pytest
import requests
from archives_of_0_1 import KINDS, has_history, pack, read_handlers

from mar_tools.serving.server import Server

from ..conftest import write_configuration

pytestmark = pytest.mark.skipif(not has_history(), reason="this clone lacks the commits of 0.1, as shallow ones do")

GOLDEN = {"served": "right", "without_digests": "not checked"}  # the latter has none


def test_those_that_can_be_checked_answer_and_one_that_cannot_is_left_out_by_name(tmp_path: Path, seven: bytes) -> None:
    for kind in KINDS:
        pack(kind, read_handlers(kind), tmp_path / "model_store" / f"{kind}.mar")
    server = Server(write_configuration(tmp_path, disable_token_authorization="true"))
    try:
        found = {health.model: health for health in server.start(timeout_s=120, announce=lambda step: None)}
        assert {name: health.golden for name, health in found.items() if health.healthy} == GOLDEN
        assert "python scripts/build_model.py RECIPE" in str(found["refused.mar"].problem)
        url = f"http://127.0.0.1:{server.ports()['inference_address']}/predictions/"
        for model in GOLDEN:
            answer = requests.post(url + model, data=seven, timeout=60)
            assert (answer.status_code, answer.json()["classes"][0]["label"]) == (200, "7")
    finally:
        server.stop()
