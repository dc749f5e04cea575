"""Heat maps of what speaks for a class.

explanations.py   the images of a batch one after the other, each within its share of the time
attribution.py    the methods: occlusion, integrated gradients, saliency; their values over the source image
"""
