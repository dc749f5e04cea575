"""Keys of a config.properties: each one that TorchServe reads, and no other."""

import zipfile
from pathlib import Path

import pytest
import ts

from mar_tools.command_line import ROOT
from mar_tools.serving.setting_names import NUMBERS, OTHERS, check_settings
from vision_serving.errors import ConfigError
from vision_serving.worker.server_settings import read_properties

JAR = Path(ts.__file__).parent / "frontend" / "model-server.jar"
OWN = "; give each a port of its own"
READ_IN_PYTHON = {"plugins_path", "vmargs"}  # by the command that starts Java


def test_torchserve_reads_each_key() -> None:
    with zipfile.ZipFile(JAR) as jar:
        constants = jar.read("org/pytorch/serve/util/ConfigManager.class")
    unread = {
        name for name in NUMBERS | OTHERS if b"\x01" + len(name).to_bytes(2, "big") + name.encode() not in constants
    }
    assert unread == READ_IN_PYTHON


def test_tokens_may_live_for_a_part_of_a_minute() -> None:
    check_settings({"token_expiration_min": "0.15"})


def test_the_shipped_settings_are_known() -> None:
    check_settings(read_properties((ROOT / "config.properties").read_text(encoding="utf-8")))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("model_stor=model_store", "unknown key 'model_stor'; did you mean 'model_store'?"),
        ("Job-Queue-Size=8", "unknown key 'Job-Queue-Size'; did you mean 'job_queue_size'?"),
        ("vision_trusted_key=keys/*.pub", "unknown key 'vision_trusted_key'; did you mean 'vision_trusted_keys'?"),
        ("metric_port=8083", "unknown key 'metric_port'; did you mean 'metrics_port'?"),
        ("metrics_port=eighty", "metrics_port: expected a whole number from 0 to 65535, got 'eighty'"),
        ("metrics_port=8081", "management_address and metrics_port are both 8081" + OWN),
        ("metrics_golden_s=-1", "metrics_golden_s: expected a whole number from 0 to 86400, got '-1'"),
        ("colour=red", "unknown key 'colour'; docs/operate/settings.md names the keys"),
        ("max_request_size=25MB", "max_request_size: expected a whole number, got '25MB'"),
        ("token_expiration_min=day", "token_expiration_min: expected a number, got 'day'"),
        ("grpc_management_port=7070", "grpc_inference_port and grpc_management_port are both 7070" + OWN),
        ("metrics_address=http://127.0.0.1:7071", "grpc_management_port and metrics_address are both 7071" + OWN),
        ("metrics_address=http://127.0.0.1:8081", "management_address and metrics_address are both 8081" + OWN),
        ("management_address=http://127.0.0.1:8080", "inference_address and management_address are both 8080" + OWN),
        ("management_address=http://0.0.0.0:8080", "inference_address and management_address are both 8080" + OWN),
        (
            "inference_address=https://127.0.0.1:8443\nprivate_key_file=a.key",
            "inference_address: https needs `private_key_file` and `certificate_file`, or `keystore`; name them, "
            "or use http",
        ),
        ("job_queue_size=", "job_queue_size: expected a whole number, got ''"),
    ],
    ids=lambda value: value.partition("=")[0],
)
def test_a_key_that_nobody_reads_is_refused(line: str, message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        check_settings(read_properties(line))
    assert str(refused.value) == f"config.properties: {message}"


@pytest.mark.parametrize(
    "lines",
    [
        "management_address=http://127.0.0.2:8080",
        "enable_metrics_api=false\nmetrics_address=http://127.0.0.1:8080",
        "inference_address=https://127.0.0.1:8080\nprivate_key_file=a.key\ncertificate_file=a.pem",
        "inference_address=https://127.0.0.1:8080\nkeystore=a.p12",
    ],
    ids=["two addresses", "no metrics", "certificate", "keystore"],
)
def test_addresses_are_taken_that_torchserve_takes(lines: str) -> None:
    check_settings(read_properties(lines))


def test_a_plug_in_may_have_keys_of_its_own() -> None:
    check_settings({"plugins_path": "plugins", "colour": "red"})
