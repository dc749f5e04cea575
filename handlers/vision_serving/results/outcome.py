"""What came of one request: a result for each image."""

from dataclasses import dataclass
from typing import TypeAlias

from vision_serving.errors import InferenceError, RequestError
from vision_serving.predictions import Classification, Detections, Explanation, Prediction
from vision_serving.requests.contents import NO_WISHES, AnswerWishes
from vision_serving.requests.payload import Form

ImageResult: TypeAlias = Prediction | Explanation | RequestError


@dataclass(frozen=True)
class Outcome:
    """One request's results, one per image, in order."""

    items: tuple[ImageResult, ...]
    form: Form = Form.RAW
    wishes: AnswerWishes = NO_WISHES


def name_outcome(result: ImageResult) -> str:
    """Return what came of an image in a word of a finite set: `predicted`, `explained` or an error's type."""
    if isinstance(result, RequestError):
        return type(result).__name__
    return "explained" if isinstance(result, Explanation) else "predicted"


def check_scores(result: ImageResult) -> ImageResult:
    """Return a result as it is, or an error in the place of one with a score that is no number in [0, 1].

    The last door of every task: whatever a model or a task of one's own gives, no such score leaves.
    """
    if isinstance(result, Explanation):
        scores = [result.score]
    elif isinstance(result, Classification):
        scores = [each.score for each in result.classes]
    else:
        scores = [each.score for each in result.detections] if isinstance(result, Detections) else []
    odd = next((score for score in scores if not 0 <= score <= 1), None)
    return result if odd is None else InferenceError(f"the model gave a score of {odd:.4g}; expected one in [0, 1]")
