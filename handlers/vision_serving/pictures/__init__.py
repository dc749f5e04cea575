"""Encoded images become pixels at model size.

preparation.py        the images of a batch, in a few threads and within a budget of memory
decoders.py           the libraries that decode, made ready and silent
decoding.py           one image: opened, checked, decoded, turned upright
structure_limits.py   first, what Pillow would read piece by piece
header_limits.py      then what its header says, held against the limits
colours.py            any colour mode becomes RGB
tiles.py              the tiles that a large image is cut into
resizing.py           pixels of any size become a batch of model pixels
"""
