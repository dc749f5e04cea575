"""What came of one request: a result an image."""

from dataclasses import dataclass
from typing import TypeAlias

from vision_serving.errors import RequestError
from vision_serving.predictions import Explanation, Prediction
from vision_serving.requests.contents import NO_WISHES, AnswerWishes
from vision_serving.requests.payload import Form

ItemResult: TypeAlias = Prediction | Explanation | RequestError


@dataclass(frozen=True)
class Outcome:
    """One request's results, one per image, in order."""

    items: tuple[ItemResult, ...]
    form: Form = Form.RAW
    wishes: AnswerWishes = NO_WISHES
