"""HEIF: decoded by pillow_heif, on one thread."""

from vision_serving.errors import ConfigError, how_to_install
from vision_serving.pictures.formats.base import Format

BRANDS = frozenset((
    b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"mif2", b"mif3", b"msf1", b"jpeg",
    b"jpgs", b"avci", b"avcs", b"vvic", b"vvis", b"evbi", b"evbs", b"evmi", b"evms", b"j2ki", b"j2is", b"unif", b"1pic",
    b"miaf",
))  # fmt: skip


def _prepare() -> None:
    try:
        import pillow_heif
    except ModuleNotFoundError as error:
        raise ConfigError(f"limits.formats: HEIF needs {how_to_install(error)}") from error
    pillow_heif.register_heif_opener(decode_threads=1, thumbnails=False, depth_images=False, aux_images=False)


FORMAT = Format(suffixes=(".heic", ".heif"), brands=BRANDS, prepare=_prepare)
