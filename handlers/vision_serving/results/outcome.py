"""What came of one request: a result for each image."""

from dataclasses import dataclass
from typing import TypeAlias

from vision_serving.errors import RequestError
from vision_serving.predictions import Explanation, Prediction
from vision_serving.requests.contents import NO_WISHES, AnswerWishes
from vision_serving.requests.payload import Form

ImageResult: TypeAlias = Prediction | Explanation | RequestError


@dataclass(frozen=True)
class Outcome:
    """One request's results, one per image, in order."""

    items: tuple[ImageResult, ...]
    form: Form = Form.RAW
    wishes: AnswerWishes = NO_WISHES
