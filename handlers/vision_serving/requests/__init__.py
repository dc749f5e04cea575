"""What a client sent: images, options and wishes for the answer, whatever protocol brought them.

payload.py          one request as TorchServe hands it over, in any of its forms
open_inference.py   the tensors of an Open Inference request (V2)
accept.py           the media type that an `Accept` header prefers
contents.py         the words for all of it: Pixels, SentImage, ImageIndex, AnswerWishes
"""
