"""What an answer may be, and which of it a request's `Accept` header prefers (RFC 9110, 12.5.1)."""

import re
from dataclasses import dataclass

JSON_TYPE = "application/json"
PICTURE_TYPES = {"image/png": "PNG", "image/jpeg": "JPEG"}  # media type -> Pillow's name of the format
MEDIA_TYPES = (JSON_TYPE, *PICTURE_TYPES)
WEIGHT = re.compile(r"0(\.\d{0,3})?|1(\.0{0,3})?")


@dataclass(frozen=True)
class MediaRange:
    """One element of an `Accept` header: `image/png`, `image/*` or `*/*`, with its weight and its place there."""

    pattern: str
    weight: float
    place: int

    @property
    def precision(self) -> int:
        """Return how little it leaves open."""
        return 2 - self.pattern.count("*")

    def matches(self, media_type: str) -> bool:
        return self.pattern in (media_type, media_type.partition("/")[0] + "/*", "*/*")


def choose_media_type(accept: str) -> str:
    """Return the one with the highest weight; of equals the one that is named most precisely, then first.

    JSON where the header is empty, leaves the choice to the server, or names nothing that can be given.
    """
    ranges = [_read_range(part, place) for place, part in enumerate(accept.lower().split(","))]
    rated = [(_rate(media_type, ranges), media_type) for media_type in MEDIA_TYPES]
    (weight, *_), best = max(rated, key=lambda pair: pair[0])
    return best if weight > 0 else JSON_TYPE


def _rate(media_type: str, ranges: list[MediaRange]) -> tuple[float, int, int]:
    """Rate by the most precise range that matches: weight, precision, and how early it stands."""
    matching = [candidate for candidate in ranges if candidate.matches(media_type)]
    if not matching:
        return 0.0, 0, 0
    decisive = max(matching, key=lambda candidate: candidate.precision)
    return decisive.weight, decisive.precision, -decisive.place


def _read_range(text: str, place: int) -> MediaRange:
    """Read a range. Parameters other than the weight are passed over; a weight that is none counts as 0."""
    pattern, *parameters = (part.strip() for part in text.split(";"))
    weights = [parameter[2:].strip() for parameter in parameters if parameter.startswith("q=")]
    weight = weights[0] if weights else "1"
    return MediaRange(pattern, float(weight) if WEIGHT.fullmatch(weight) else 0.0, place)
