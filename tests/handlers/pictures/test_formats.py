import random
import sys
from contextlib import suppress
from typing import get_args

import PIL.AvifImagePlugin
import PIL.Image
import pytest
from fakes import encode_image, generate_image

from vision_serving.config import ImageFormat, ImageLimits
from vision_serving.errors import ConfigError, RequestError
from vision_serving.pictures.decoding import decode_image
from vision_serving.pictures.formats import FORMATS, load_formats, tiff
from vision_serving.pictures.unopened import FOREIGN

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow comments on broken files


@pytest.fixture
def heif() -> None:
    pytest.importorskip("pillow_heif", reason="pip install -r requirements/heif.txt")
    load_formats(("AVIF", "HEIF"))


def test_what_an_archive_may_name_is_what_the_table_has() -> None:
    assert FORMATS.keys() == set(get_args(ImageFormat))


def test_each_format_is_known_by_how_its_files_begin_and_are_called() -> None:
    assert all(known.suffixes and (known.signatures or known.brands) for known in FORMATS.values())


def test_what_is_served_is_not_among_the_foreign_files_too() -> None:
    begins = {bytes(offset) + signature: name for offset, signature, name in FOREIGN}
    assert [name for begin, name in begins.items() if any(known.fits(begin) for known in FORMATS.values())] == []


def test_heif_without_its_package_is_an_error_of_the_archive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(ConfigError, match=r"limits.formats: HEIF needs .*-r requirements/heif\.txt"):
        load_formats(("JPEG", "HEIF"))


def test_decoders_start_no_threads_of_their_own(heif: None) -> None:
    assert PIL.AvifImagePlugin.DEFAULT_MAX_THREADS == 1
    assert sys.modules["pillow_heif"].options.DECODE_THREADS == 1


PHOTO = PIL.Image.fromarray(generate_image(1, (48, 64)))
COMPRESSIONS = ("tiff_lzw", "jpeg", "tiff_adobe_deflate", "packbits", "group3", "group4", "tiff_ccitt", "zstd")


def damaged(whole: bytes, choose: random.Random) -> bytes:
    broken = bytearray(whole)
    for _ in range(choose.randint(1, 8)):
        broken[choose.randrange(len(broken))] = choose.randrange(256)
    return bytes(broken[: choose.randrange(len(broken))] if choose.random() < 0.2 else broken)


def decode_or_refuse(encoded: bytes) -> None:
    with suppress(RequestError):
        decode_image(encoded, ImageLimits(max_pixels=2_000_000))


def files() -> dict[str, bytes]:
    plain = {kind: encode_image(PHOTO, kind) for kind in ImageLimits().formats if kind != "TIFF"}
    bits = {name: PHOTO.convert("1" if name.startswith(("group", "tiff_ccitt")) else "RGB") for name in COMPRESSIONS}
    return plain | {name: encode_image(picture, "TIFF", compression=name) for name, picture in bits.items()}


@pytest.mark.parametrize("name", files())
def test_no_decoder_writes_to_a_stream(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    load_formats(ImageLimits().formats)
    choose = random.Random(name)
    whole = files()[name]
    for _ in range(100):
        decode_or_refuse(damaged(whole, choose))
    assert capfd.readouterr() == ("", "")


def test_a_libtiff_that_cannot_be_silenced_is_an_error_of_the_installation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiff, "HANDLER_SETTERS", ("TIFFSetNoHandler",))
    with pytest.raises(ConfigError, match="has no TIFFSetNoHandler; install Pillow from its wheels"):
        load_formats(ImageLimits().formats)
