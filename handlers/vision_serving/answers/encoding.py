"""An answer in the media type that its request prefers: JSON, or its picture decoded again, drawn on and encoded."""

import io

import PIL.Image

from vision_serving.answers.drawing import draw_prediction, open_picture
from vision_serving.answers.heat_map_drawing import draw_explanation
from vision_serving.answers.responses import ModelIdentity, Response, encode_response
from vision_serving.config import HandlerConfig
from vision_serving.errors import RequestError
from vision_serving.options import DetectionOptions, MaskOptions, Options
from vision_serving.pictures.decoding import wrap_pixels
from vision_serving.predictions import Embedding, Explanation, Prediction
from vision_serving.requests.accept import JSON_TYPE, PICTURE_TYPES
from vision_serving.requests.contents import Pixels, SentImage
from vision_serving.requests.payload import Payload
from vision_serving.results.outcome import Outcome
from vision_serving.timings import StageTimings

# PNG: the quickest compression. JPEG: colours at full resolution, as thin lines need it.
ENCODER_OPTIONS = {"PNG": {"compress_level": 1}, "JPEG": {"quality": 90, "subsampling": 0}}


def options_for_drawing(options: Options) -> Options:
    """Ask for boxes as corners, and masks as outlines, from which they are drawn, whatever form the request wants."""
    if not isinstance(options, DetectionOptions):
        return options
    has_masks = isinstance(options, MaskOptions) and options.mask_format != "none"
    return options.model_copy(update={"box_format": "xyxy", **({"mask_format": "polygons"} if has_masks else {})})


def encode_answer(
    payload: Payload, outcome: Outcome, model: ModelIdentity, config: HandlerConfig, timings: StageTimings
) -> Response:
    """Return the answer in the media type that its request prefers; JSON for errors, and where nothing can be drawn."""
    item = outcome.items[0]
    if payload.answer_type == JSON_TYPE or isinstance(item, (RequestError, Embedding)):
        return encode_response(outcome, model)
    with timings.measure("draw"):
        body = encode_annotated(payload.images[0], item, payload.answer_type, config)
    return Response(200, body, payload.answer_type)


def encode_annotated(sent: SentImage, item: Prediction | Explanation, media_type: str, config: HandlerConfig) -> bytes:
    """Draw what was found onto the image as it came. Raises a RequestError where it cannot be decoded again."""
    assert not isinstance(sent, RequestError)  # what has a prediction could be read
    if isinstance(sent, Pixels):
        picture = PIL.Image.fromarray(wrap_pixels(sent.data, (sent.height, sent.width), config.limits))
    else:
        picture = open_picture(sent, config.limits, config.colours)
    drawn = draw_explanation(picture, item) if isinstance(item, Explanation) else draw_prediction(picture, item)
    file_format, buffer = PICTURE_TYPES[media_type], io.BytesIO()
    drawn.save(buffer, file_format, **ENCODER_OPTIONS[file_format])
    return buffer.getvalue()
