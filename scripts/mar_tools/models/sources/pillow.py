"""How the installed Pillow resizes: torchvision and timm leave the resizing of pictures to it."""

from typing import Literal

import PIL


def pass_order() -> Literal["horizontal_first", "pillow13"]:
    """Return which side of a picture comes first.

    Written into the archive, so that no other Pillow changes its answers.
    """
    return "pillow13" if int(PIL.__version__.partition(".")[0]) >= 13 else "horizontal_first"
