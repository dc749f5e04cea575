"""Colour profiles, made by hand: each says something that can be seen."""

import struct
from collections.abc import Mapping, Sequence

D50 = (0.9642, 1.0, 0.8249)
# Red, green and blue of sRGB and of Display P3 as XYZ under D50: the columns of their matrices.
SRGB_PRIMARIES = ((0.4361, 0.2225, 0.0139), (0.3851, 0.7169, 0.0971), (0.1431, 0.0606, 0.7141))
P3_PRIMARIES = ((0.5151, 0.2412, -0.0011), (0.2920, 0.6922, 0.0419), (0.1571, 0.0666, 0.7841))


def _xyz(values: Sequence[float]) -> bytes:
    return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(value * 65536) for value in values))


def _gamma(value: float) -> bytes:
    return b"curv\0\0\0\0" + struct.pack(">IHH", 1, round(value * 256), 0)


def write_profile(space: bytes, tags: Mapping[bytes, bytes], device: bytes = b"mntr", pcs: bytes = b"XYZ ") -> bytes:
    """space: of the colours, `RGB `, `GRAY` or `CMYK`. pcs: of what they are translated to."""
    table, data = struct.pack(">I", len(tags)), b""
    start = 128 + 4 + 12 * len(tags)
    for name, content in tags.items():
        table += name + struct.pack(">II", start + len(data), len(content))
        data += content
    head = struct.pack(">I", start + len(data)) + b"none\x02\x10\0\0" + device + space + pcs
    head += struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + b"acsp" + bytes(28) + _xyz(D50)[8:]
    return head.ljust(128, b"\0") + table + data


def rgb_profile(primaries: Sequence[Sequence[float]], gamma: float = 2.2) -> bytes:
    tags = {name + b"XYZ": _xyz(values) for name, values in zip((b"r", b"g", b"b"), primaries, strict=True)}
    return write_profile(b"RGB ", {**tags, **{name + b"TRC": _gamma(gamma) for name in (b"r", b"g", b"b")}})


def gray_profile(gamma: float) -> bytes:
    return write_profile(b"GRAY", {b"wtpt": _xyz(D50), b"kTRC": _gamma(gamma)})


def black_ink_profile() -> bytes:
    """Full ink of any of the four prints black, whatever its name; paper is white."""
    ramp = bytes(range(256))
    white, black = bytes((255, 128, 128)), bytes((0, 128, 128))
    colours = white + black * 15  # at the 2 x 2 x 2 x 2 corners of CMYK, in Lab
    matrix = struct.pack(">9i", *(65536 if place % 4 == 0 else 0 for place in range(9)))
    table = b"mft1\0\0\0\0" + bytes((4, 3, 2, 0)) + matrix + ramp * 4 + colours + ramp * 3
    return write_profile(b"CMYK", {b"wtpt": _xyz(D50), b"A2B0": table}, device=b"prtr", pcs=b"Lab ")


SWAPPED = rgb_profile((SRGB_PRIMARIES[1], SRGB_PRIMARIES[0], SRGB_PRIMARIES[2]))  # red is green, and green is red
