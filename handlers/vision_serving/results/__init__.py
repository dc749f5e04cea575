"""A model's outputs become predictions.

postprocessing.py   the best classes or boxes: thresholds, NMS
instances.py        what a detector gives beyond boxes: masks and keypoints
masks.py            a mask as run lengths or polygons
tile_merging.py     one answer from those of an image and its tiles
outcome.py          the results of one request
"""
