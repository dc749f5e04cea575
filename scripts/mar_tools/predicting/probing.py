"""A picture of nothing, which tells before the work whether a model answers, and what its answers look like."""

import io


def gray_picture() -> bytes:
    """Return a gray JPEG of 64 x 64 pixels."""
    import PIL.Image

    encoded = io.BytesIO()
    PIL.Image.new("RGB", (64, 64), (128, 128, 128)).save(encoded, "JPEG")
    return encoded.getvalue()
