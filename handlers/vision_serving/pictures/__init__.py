"""Encoded images become pixels at model size.

preparation.py        the images of a batch, in a few threads and within a budget of memory
decoders.py           the libraries that decode, made ready and silent
decoding.py           one image: opened, checked, decoded, turned upright
kinds.py              what could not be opened: which format and kind it is
structure_limits.py   first, what Pillow would read piece by piece
header_limits.py      then what its header says, held against the limits
png_chunks.py         what counts of a PNG, as a plain PNG
loading.py            the pixels of an opened picture, as RGB
cut_files.py          a JPEG or PNG that ends too early, of which no pixel is missing
colours.py            any colour mode becomes RGB
tiles.py              the tiles that a large image is cut into
resizing.py           pixels of any size become a batch of model pixels
"""
