"""What front.yaml may say."""

import re
from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, Field, model_validator

from mar_tools.front.client_keys import NAME
from mar_tools.front.machines import Machines
from vision_serving.validation import StrictModel, shorten

Origin = Annotated[str, Field(pattern=r"^https?://[\w.-]+(:\d+)?$")]


def _read_place(value: object) -> str:
    place = re.fullmatch(r"([\w.-]+|\*|\[[\da-fA-F:.]+\]):(\d{1,5})", str(value))
    if place is None or not 0 < int(place[2]) <= 65535:
        raise ValueError(f"expected HOST:PORT, as 127.0.0.1:8443 or 0.0.0.0:8443; got {shorten(value, 80)!r}")
    return place[0]


class FrontSettings(StrictModel):
    """machines: whose fronts this one shares its requests out to; None before this machine's TorchServe."""

    listen: Annotated[str, BeforeValidator(_read_place)]
    tls: bool
    certificate: Path | None
    certificate_key: Path | None
    names: tuple[str, ...] = Field(min_length=1)
    clients: Path | None
    only_client: str | None = Field(pattern=NAME.pattern + "$")
    machines: Machines | None
    requests_per_s: int = Field(gt=0)
    burst: int = Field(ge=0)
    concurrent_requests: int = Field(gt=0)
    connections_of_an_address: int = Field(gt=0)
    explanations_at_once: int = Field(gt=0)
    costly_of_a_client: int = Field(gt=0)
    form_parts: int = Field(gt=0)
    allowed_origins: tuple[Origin, ...]
    path_prefix: str = Field(pattern=r"^(/[\w-]+)*$")
    playground: bool
    header_timeout_s: int = Field(gt=0)
    body_timeout_s: int = Field(gt=0)
    answer_timeout_s: int = Field(gt=0)

    @model_validator(mode="after")
    def _check_loop(self) -> "FrontSettings":
        if self.machines is not None and self.listen in self.machines.addresses:
            raise ValueError(f"machines.addresses: {self.listen} is where this front listens; it would ask itself")
        return self
