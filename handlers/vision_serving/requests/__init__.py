"""What a client sent: images, options and wishes for the answer, whatever protocol brought them.

payload.py          one request as TorchServe hands it over, in any of its forms
open_inference.py   the tensors of an Open Inference request (V2)
base64_text.py      an image that came as base64, in every spelling that clients write
accept.py           the media type that an `Accept` header prefers
contents.py         the words for all of it: Pixels, SentImage, ImageIndex, AnswerWishes
"""
