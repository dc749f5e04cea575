"""GIF: its blocks before the first frame are counted."""

from collections.abc import Iterator

from vision_serving.pictures.formats.base import Format, check_pieces


def _check_blocks(encoded: bytes) -> None:
    check_pieces(encoded, _walk_blocks)


def _walk_blocks(encoded: bytes) -> Iterator[None]:
    """Walk up to the first frame."""
    place = 13 + (3 << (encoded[10] & 7) + 1 if encoded[10] & 0x80 else 0)
    while place + 2 < len(encoded) and encoded[place] not in b",;":
        yield
        if encoded[place] != ord("!"):
            place += 1
            continue
        place += 2
        while place < len(encoded) and encoded[place]:
            yield
            place += 1 + encoded[place]
        place += 1


FORMAT = Format(suffixes=(".gif",), signatures=((0, b"GIF8"),), check_bytes=_check_blocks, is_framed=True)
