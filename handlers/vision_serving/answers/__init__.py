"""Predictions become the bytes of an answer.

encoding.py          an answer in the media type that its request prefers: JSON, or a picture
responses.py         an outcome becomes a status, headers and a body
open_inference.py    the output tensors of the Open Inference Protocol (V2)
drawing.py           a prediction drawn onto its picture
instance_drawing.py  masks and keypoints of its objects
heat_map_drawing.py  an explanation drawn onto its picture
label_placement.py   the text on a picture: characters, width, place
"""
