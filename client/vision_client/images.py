"""Whatever holds one image -> the encoded bytes that are sent."""

import io
import os
import stat
import struct
import zlib
from collections.abc import Callable
from typing import Any, Protocol, TypeAlias, TypeGuard

from vision_client.errors import ImageInputError

EXIF_ORIENTATION = 0x0112
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
PNG_MODES = ("1", "L", "LA", "I;16", "P", "RGB", "RGBA")  # that Pillow writes without a loss,
TIFF_MODES = ("CMYK", "LAB", "I", "F")  # and these: what their colours are in RGB, the server says, as of a file
# What files, and Pillow with broken ones, raise.
READ_ERRORS = (OSError, ValueError, SyntaxError, LookupError, TypeError, EOFError, struct.error, zlib.error)
NONBLOCK = getattr(os, "O_NONBLOCK", 0)  # a pipe that nobody writes to is opened at once; Windows has none
FAST = 1  # pictures go over the network once: time matters more than the last bytes


class File(Protocol):
    """A binary file."""

    def read(self) -> bytes: ...


class Array(Protocol):
    """A numpy array: uint8 (H, W, 3), RGB."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> Any: ...
    def tobytes(self) -> bytes: ...


class Picture(Protocol):
    """A PIL.Image.Image."""

    @property
    def mode(self) -> str: ...
    def getexif(self) -> Any: ...
    def convert(self, mode: str) -> Any: ...
    def save(self, fp: Any, format: str | None = None, **params: Any) -> None: ...


ImageInput: TypeAlias = str | os.PathLike[str] | bytes | bytearray | memoryview | File | Array | Picture


def is_image(value: object) -> TypeGuard[ImageInput]:
    """Return whether the value is one image, as opposed to several."""
    return _find_reader(value) is not None


def encode_image(image: Any) -> bytes:
    """Return files and bytes as they are, arrays and pictures without a loss. Raises ImageInputError."""
    reader = _find_reader(image)
    if reader is None:
        raise _bad_input(
            f"expected a path, bytes, a binary file, a PIL image or a numpy array, got {type(image).__name__}"
        )
    try:
        return reader(image)
    except READ_ERRORS as error:
        raise _bad_input(f"the image cannot be read: {error}") from error


def _read_path(path: str | os.PathLike[str]) -> bytes:
    try:
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | NONBLOCK)) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise _bad_input(f"{os.fspath(path)} is a pipe or device, which may never end; give its bytes")
            return file.read()
    except IsADirectoryError as error:
        raise _bad_input(f"{os.fspath(path)} is a folder; give the images in it, one path each") from error


def _read_file(file: File) -> bytes:
    content = file.read()
    if isinstance(content, str):
        raise _bad_input("the file is open as text; open it with mode 'rb'")
    return content


def _encode_array(array: Array) -> bytes:
    """Return a PNG without numpy or Pillow. Eight-bit RGB is rows of bytes, each after its filter's number."""
    shape = tuple(array.shape)
    if str(array.dtype) != "uint8" or len(shape) != 3 or shape[2] != 3 or 0 in shape:
        found = f"{type(array).__name__} {array.dtype} {shape}"
        raise _bad_input(f"expected a uint8 array (height, width, 3) of RGB pixels, got {found}")
    height, width, _ = shape
    pixels, stride = array.tobytes(), 3 * width
    rows = b"".join(b"\0" + pixels[start : start + stride] for start in range(0, len(pixels), stride))
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows, FAST)), (b"IEND", b""))
    return PNG_SIGNATURE + b"".join(_png_chunk(name, data) for name, data in chunks)


def _png_chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def _encode_picture(picture: Picture) -> bytes:
    """Encode with EXIF orientation and colour profile, so that the answer is that of the file it was opened from."""
    buffer, exif = io.BytesIO(), _orientation_alone(picture.getexif())
    if picture.mode in TIFF_MODES:
        picture.save(buffer, "TIFF", exif=exif)
    elif picture.mode in PNG_MODES:
        picture.save(buffer, "PNG", compress_level=FAST, exif=exif)
    else:
        picture.convert("RGBA").save(buffer, "PNG", compress_level=FAST, exif=exif)
    return buffer.getvalue()


def _orientation_alone(exif: Any) -> Any:
    """Return the orientation alone: neither places nor makers of cameras leave this machine with the pixels."""
    kept = type(exif)()
    if EXIF_ORIENTATION in exif:
        kept[EXIF_ORIENTATION] = exif[EXIF_ORIENTATION]
    return kept


def _bad_input(message: str) -> ImageInputError:
    return ImageInputError(None, "ImageInputError", message)


Reader: TypeAlias = Callable[[Any], bytes]
# What is asked, in this order -> how such an image is read. A PIL image has no `read`, an array has no `mode`.
READERS: tuple[tuple[Callable[[object], bool], Reader], ...] = (
    (lambda value: isinstance(value, (str, os.PathLike)), _read_path),
    (lambda value: isinstance(value, (bytes, bytearray, memoryview)), bytes),
    (lambda value: hasattr(value, "shape") and hasattr(value, "dtype"), _encode_array),
    (lambda value: hasattr(value, "mode") and hasattr(value, "getexif"), _encode_picture),
    (lambda value: hasattr(value, "read"), _read_file),
)


def _find_reader(value: object) -> Reader | None:
    return next((reader for matches, reader in READERS if matches(value)), None)
