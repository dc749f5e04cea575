"""The keys of a `config.properties`: TorchServe ignores those that it does not know, without a word."""

import re
from collections.abc import Mapping
from itertools import combinations

from mar_tools.serving.logs import LOGS_KEY, log_form
from mar_tools.serving.metrics_exporter import (
    GOLDEN_KEY,
    HOST_KEY,
    METRICS_KEY,
    golden_interval_s,
    metrics_host,
    metrics_port,
)
from mar_tools.serving.ports import ADDRESS_KEYS, ANY_HOST, listening_places
from vision_serving.errors import ConfigError
from vision_serving.validation import find_near
from vision_serving.worker.sample_settings import DAYS_KEY, SIZE_KEY, read_sample_bounds
from vision_serving.worker.server_settings import STATE_KEY

# Of TorchServe 0.12.0.
NUMERIC = """
    default_response_timeout default_startup_timeout default_workers_per_model grpc_inference_port
    grpc_inference_max_connection_age_grace_ms grpc_inference_max_connection_age_ms grpc_management_port
    grpc_management_max_connection_age_grace_ms grpc_management_max_connection_age_ms initial_distribution_port
    initial_worker_port io_ratio job_queue_size max_request_size max_response_size metric_time_interval
    netty_client_threads number_of_gpu number_of_netty_threads token_expiration_min unregister_model_timeout"""
TEXTUAL = """
    allowed_urls async_logging blacklist_env_vars certificate_file cors_allowed_headers cors_allowed_methods
    cors_allowed_origin cpp_log_config cpu_launcher_args cpu_launcher_enable debug decode_input_request
    default_service_handler disable_system_metrics disable_token_authorization enable_envvars_config enable_grpc_ssl
    enable_metrics_api enable_model_api grpc_inference_address grpc_management_address inference_address
    install_py_dep_per_model ipex_enable ipex_gpu_enable keystore keystore_pass keystore_type limit_max_image_pixels
    load_models management_address metrics_address metrics_config metrics_mode model_metrics_auto_detect
    model_server_home model_snapshot model_store models plugins_path prefer_direct_buffer private_key_file
    service_envelope system_metrics_cmd ts_header_key_sequence_end ts_header_key_sequence_id
    ts_header_key_sequence_start ts_open_inference_protocol use_env_allowed_urls use_native_io vmargs workflow_store"""
NUMBERS, OTHERS = frozenset(NUMERIC.split()), frozenset(TEXTUAL.split())
OURS = frozenset(
    {STATE_KEY, "vision_archives", "vision_trusted_keys", METRICS_KEY, HOST_KEY, GOLDEN_KEY, LOGS_KEY, SIZE_KEY}
    | {DAYS_KEY}
)


def check_settings(values: Mapping[str, str]) -> None:
    """Raises ConfigError for a key that nobody reads, and for a number that is none.

    A plug-in of TorchServe may have keys of its own.
    """
    for key, value in values.items():
        if key not in NUMBERS | OTHERS | OURS and "plugins_path" not in values:
            near = find_near(key, sorted(NUMBERS | OTHERS | OURS))
            hint = f"did you mean {near!r}?" if near else "docs/operate/settings.md names the keys"
            raise ConfigError(f"config.properties: unknown key {key!r}; {hint}")
        fraction = r"(\.\d+)?" if key == "token_expiration_min" else ""
        if key in NUMBERS and not re.fullmatch(rf"-?\d{{1,18}}{fraction}", value.strip()):
            expected = "a number" if fraction else "a whole number"
            raise ConfigError(f"config.properties: {key}: expected {expected}, got {value[:80]!r}")
    secure = [key for key in ADDRESS_KEYS if values.get(key, "").startswith("https:")]
    if secure and "keystore" not in values and not values.keys() >= {"private_key_file", "certificate_file"}:
        raise ConfigError(
            f"config.properties: {secure[0]}: https needs `private_key_file` and `certificate_file`, or `keystore`; "
            "name them, or use http"
        )
    golden_interval_s(values)
    metrics_host(values)
    log_form(values)
    read_sample_bounds(values)
    check_places(values)


def check_places(values: Mapping[str, str]) -> None:
    """Raises ConfigError where two of the five, or the exporter of metrics and one of them, would listen at one place.

    TorchServe makes one server of predictions and management at the same address, which answers neither as it should.
    """
    places = listening_places(values)
    if values.get("enable_metrics_api", "true").lower() == "false":
        del places["metrics_address"]
    if port := metrics_port(values):
        places[METRICS_KEY] = (metrics_host(values), port)
    for (key, (host, port)), (other, (other_host, other_port)) in combinations(places.items(), 2):
        if port == other_port and (host == other_host or ANY_HOST in (host, other_host)):
            raise ConfigError(f"config.properties: {key} and {other} are both {port}; give each a port of its own")
