"""Answers as pictures, for the requests that accept them: decoded again, drawn on, and encoded."""

import io

import PIL.Image

from vision_serving.config import ColourConfig, HandlerConfig, ImageLimits
from vision_serving.drawing import draw_prediction, picture_scale
from vision_serving.errors import RequestError
from vision_serving.failures import to_request_error
from vision_serving.heat_maps import draw_explanation
from vision_serving.images import open_image, read_picture, shrink_jpeg, wrap_pixels
from vision_serving.media_types import JSON_TYPE, PICTURE_TYPES
from vision_serving.metrics import StageTimings
from vision_serving.options import Options
from vision_serving.payload import Payload
from vision_serving.predictions import Explanation, Prediction
from vision_serving.responses import Outcome, Response, ServedModel, encode_response
from vision_serving.tensor_requests import Picture, Pixels

HEAT_MAP_SIDE = 1024  # smooth colours say no more on a larger picture
# PNG: the quickest compression. JPEG: colours at full resolution, as thin lines need it.
ENCODER_OPTIONS = {"PNG": {"compress_level": 1}, "JPEG": {"quality": 90, "subsampling": 0}}


def options_for_drawing(options: Options) -> Options:
    """Boxes are drawn from their corners in pixels, in whatever form the request wants them otherwise."""
    has_format = "box_format" in type(options).model_fields
    return options.model_copy(update={"box_format": "xyxy"}) if has_format else options


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
            return encode_response(Outcome((to_request_error(error),), outcome.form, outcome.wishes), model)
    return Response(200, body, payload.answer_type)


def encode_picture(picture: Picture, item: Prediction | Explanation, media_type: str, config: HandlerConfig) -> bytes:
    assert not isinstance(picture, RequestError)  # what has a prediction could be read
    file_format, buffer = PICTURE_TYPES[media_type], io.BytesIO()
    if isinstance(picture, Pixels):
        pixels = wrap_pixels(picture.data, (picture.height, picture.width), config.limits)
        drawn = draw_item(PIL.Image.fromarray(pixels), item)
    else:
        drawn = draw_encoded(picture, item, config.limits, config.colours)
    drawn.save(buffer, file_format, **ENCODER_OPTIONS[file_format])
    return buffer.getvalue()


def draw_encoded(
    encoded: bytes, item: Prediction | Explanation, limits: ImageLimits, colours: ColourConfig | None = None
) -> PIL.Image.Image:
    """The image, upright, with its answer drawn on it. Raises a RequestError as `images.decode_image` does."""
    with open_image(encoded, limits, shrink_to_canvas) as opened:
        return draw_item(read_picture(opened, colours or ColourConfig()), item)


def draw_item(picture: PIL.Image.Image, item: Prediction | Explanation) -> PIL.Image.Image:
    if isinstance(item, Explanation):
        return draw_explanation(item, picture, HEAT_MAP_SIDE)
    return draw_prediction(picture, item)


def shrink_to_canvas(opened: PIL.Image.Image) -> None:
    """A large JPEG need not be decoded larger than it is drawn."""
    shrink_jpeg(opened, lambda size_hw: 1 / picture_scale(size_hw[1], size_hw[0]))
