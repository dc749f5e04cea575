"""Answers as pictures, for the requests that accept them: decoded again, drawn on, and encoded."""

import io

import PIL.Image

from vision_serving.answers.drawing import draw_prediction
from vision_serving.answers.reopening import open_picture
from vision_serving.answers.responses import Response, ServedModel, encode_response
from vision_serving.config import HandlerConfig
from vision_serving.errors import RequestError
from vision_serving.explaining.heat_maps import draw_explanation
from vision_serving.foreign_errors import to_request_error
from vision_serving.metrics import StageTimings
from vision_serving.options import DetectionOptions, MaskOptions, Options
from vision_serving.pictures.decoding import wrap_pixels
from vision_serving.predictions import Explanation, Prediction
from vision_serving.requests.accept import JSON_TYPE, PICTURE_TYPES
from vision_serving.requests.contents import Picture, Pixels
from vision_serving.requests.payload import Payload
from vision_serving.results.outcome import Outcome

HEAT_MAP_SIDE = 1024  # smooth colours say no more on a larger picture
# PNG: the quickest compression. JPEG: colours at full resolution, as thin lines need it.
ENCODER_OPTIONS = {"PNG": {"compress_level": 1}, "JPEG": {"quality": 90, "subsampling": 0}}


def options_for_drawing(options: Options) -> Options:
    """Boxes are drawn from their corners, in whatever form the request wants them otherwise; masks are not drawn."""
    if not isinstance(options, DetectionOptions):
        return options
    masks = {"mask_format": "none"} if isinstance(options, MaskOptions) else {}
    return options.model_copy(update={"box_format": "xyxy", **masks})


def encode_answer(
    payload: Payload, outcome: Outcome, model: ServedModel, config: HandlerConfig, timings: StageTimings
) -> Response:
    """The answer in the media type that its request prefers; an error is JSON always. Never raises."""
    item = outcome.items[0]
    if payload.answer_type == JSON_TYPE or isinstance(item, RequestError):
        return encode_response(outcome, model)
    with timings.measure("draw"):
        try:
            body = encode_picture(payload.images[0], item, payload.answer_type, config)
        except Exception as error:  # the border: whatever happens to a picture stays with its request
            return encode_response(Outcome((to_request_error(error, "drawing"),), outcome.form, outcome.wishes), model)
    return Response(200, body, payload.answer_type)


def encode_picture(picture: Picture, item: Prediction | Explanation, media_type: str, config: HandlerConfig) -> bytes:
    assert not isinstance(picture, RequestError)  # what has a prediction could be read
    file_format, buffer = PICTURE_TYPES[media_type], io.BytesIO()
    if isinstance(picture, Pixels):
        pixels = wrap_pixels(picture.data, (picture.height, picture.width), config.limits)
        drawn = draw_item(PIL.Image.fromarray(pixels), item)
    else:
        drawn = draw_item(open_picture(picture, config.limits, config.colours), item)
    drawn.save(buffer, file_format, **ENCODER_OPTIONS[file_format])
    return buffer.getvalue()


def draw_item(picture: PIL.Image.Image, item: Prediction | Explanation) -> PIL.Image.Image:
    if isinstance(item, Explanation):
        return draw_explanation(item, picture, HEAT_MAP_SIDE)
    return draw_prediction(picture, item)
