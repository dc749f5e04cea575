"""What TorchServe gives to a handler with a batch, as far as ours reads it."""

from typing import Any


class Batch:
    """rows: each a body with its headers. answer_headers: what the handler gave to each answer."""

    model_name = "colours"

    def __init__(self, *rows: tuple[bytes, dict[str, str]]) -> None:
        self.manifest: dict[str, Any] = {"model": {"modelVersion": "1.0"}}
        self.rows = [{"body": body} for body, _ in rows]
        self.answer_headers: list[dict[str, str]] = [{} for _ in rows]
        self._headers = [headers for _, headers in rows]

    def get_all_request_header(self, index: int) -> dict[str, str]:
        return self._headers[index]

    def get_request_id(self, index: int) -> str:
        return f"57c2-{index}"

    def set_response_content_type(self, index: int, value: str) -> None:
        """Keep nothing."""

    def set_response_status(self, code: int, phrase: str, index: int) -> None:
        """Keep nothing."""

    def set_response_header(self, index: int, name: str, value: str) -> None:
        self.answer_headers[index][name] = value
