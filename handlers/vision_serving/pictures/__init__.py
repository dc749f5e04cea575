"""Encoded images become pixels at model size.

preparation.py     the images of a batch, in a few threads and within a budget of memory
decoding.py        one image: checked, opened, checked again, decoded, turned upright
formats/           what is special of each format, a file each
limits.py          what would cost too much: before a file is opened, and after
unopened.py        a file that did not open: its format, its kind, its error
opened_to_rgb.py   the pixels of an opened picture, as RGB
colours.py         any colour mode becomes RGB
tiles.py           the tiles that a large image is cut into
resizing.py        pixels of any size become a batch of model pixels
"""
