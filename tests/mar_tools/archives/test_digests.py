"""A verification stays that of its configuration when this project learns a key, and not when a value changes."""

from typing import Any

import pytest

from mar_tools.archives.digests import digest_config
from vision_serving.config import HandlerConfig

PREPROCESSING = {"resize": {"mode": "exact", "size": [8, 8]}}
SECTION = {"task": "classification", "backend": "eager", "artifact": "model", "preprocessing": PREPROCESSING}


def digest(**values: Any) -> str:
    return digest_config(HandlerConfig.model_validate({**SECTION, **values}), b'["cat"]')


@pytest.mark.parametrize(
    "values",
    [
        {"scaled_decoding": False},
        {"limits": {"max_images": 64}},
        {"preprocessing": {**PREPROCESSING, "channels": 3}},
        {"colours": {}},
    ],
    ids=["a key", "a key of a section", "a key of a required section", "a whole section"],
)
def test_a_key_that_has_its_default_changes_no_digest(values: dict[str, Any]) -> None:
    assert digest(**values) == digest()


@pytest.mark.parametrize(
    "values",
    [{"precision": "bf16"}, {"limits": {"max_images": 65}}, {"preprocessing": {**PREPROCESSING, "antialias": False}}],
    ids=["a key", "a key of a section", "a key of a required section"],
)
def test_another_value_changes_the_digest(values: dict[str, Any]) -> None:
    assert digest(**values) != digest()
