"""The answer for one image: JSON -> frozen dataclasses. What is not known yet is kept in `extra`.

They mirror the server's own predictions, whose code needs PyTorch; a client has none. In a notebook they show
themselves, on their picture where it is known. `tables.py` and `display.py` are imported when they are asked for.
"""

import copy
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar, SupportsIndex, TypeAlias, TypeVar, overload

from vision_client.errors import PredictionError
from vision_client.images import ImageInput, encode_image
from vision_client.pictures import PictureMemory, SentPicture

if TYPE_CHECKING:
    import pandas

Fields = Mapping[str, Any]
Kind = TypeVar("Kind", bound="Prediction")


@dataclass(frozen=True)
class ClassScore:
    """One class with its probability."""

    class_id: int
    label: str
    score: float
    extra: Fields = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class Detection:
    """One object; `box` is (x1, y1, x2, y2) in pixels of the upright image, unless an option asked for another form.

    corners: x and y of the four of a turned box, of which `box` is the hull; None of other models.
    """

    class_id: int
    label: str
    score: float
    box: tuple[float, float, float, float]
    corners: tuple[float, ...] | None = None
    extra: Fields = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class ImageSize:
    """Size in pixels of the upright image."""

    width: int
    height: int


@dataclass(frozen=True)
class Prediction:
    """The answer for one image. Of a kind that this package does not know, all of it is in `extra`."""

    extra: Fields = field(default_factory=dict, hash=False, kw_only=True)
    _picture: ClassVar[SentPicture | None] = None  # each result of a call has its own, which is no part of its value

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON of the server's answer."""
        written: dict[str, Any] = _write(self)
        return written

    def to_pandas(self) -> "pandas.DataFrame":
        """Return a row for each class or detection; of an embedding, one row. Raises ImportError without pandas."""
        from vision_client.tables import to_frame

        return to_frame(self)

    def to_svg(self) -> str:
        """Return the picture with what was found drawn on it. Raises ValueError where the picture is not known."""
        from vision_client.drawing import draw

        return draw(self, self._picture)

    def with_picture(self: Kind, picture: ImageInput) -> Kind:
        """Return the same result, which shows itself on this picture. Raises ImageInputError."""
        return _attach(copy.copy(self), PictureMemory().keep(picture, encode_image(picture)))

    def _repr_html_(self) -> str:
        from vision_client.display import show

        return show(self, self._picture)


@dataclass(frozen=True)
class Classification(Prediction):
    """The best classes, best first. A model of independent scores may find none."""

    classes: tuple[ClassScore, ...]

    @property
    def top(self) -> ClassScore:
        return self.classes[0]


@dataclass(frozen=True)
class Embedding(Prediction):
    """The vector of the image."""

    embedding: tuple[float, ...]


@dataclass(frozen=True)
class Detections(Prediction):
    """The objects found, best first."""

    detections: tuple[Detection, ...]
    image: ImageSize


@dataclass(frozen=True)
class HeatMap:
    """What each cell of the picture did for a class: `values` are rows from the top, `box` is where they lie.

    box: (x1, y1, x2, y2) in pixels of the upright image. It may end outside of it.
    """

    height: int
    width: int
    box: tuple[float, float, float, float]
    values: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Explanation(Prediction):
    """What speaks for a class of an image, by one method."""

    class_id: int
    label: str
    score: float
    method: str
    heat_map: HeatMap
    image: ImageSize


Result: TypeAlias = Prediction | PredictionError


class Results(list[Result]):
    """The results of several images, in their order: a prediction each, or the error in its place."""

    def to_dict(self) -> list[dict[str, Any]]:
        """Return the JSON of each answer, and of each error as {"error": {"code", "type", "message"}}."""
        return [result.to_dict() if isinstance(result, Prediction) else _write_error(result) for result in self]

    def to_pandas(self) -> "pandas.DataFrame":
        """Return the rows of all images; an image without findings has one row. Raises ImportError without pandas.

        The columns before the others are `image`, which counts from 0, and `file` where images are paths; the last one
        is `error` where an image has one.
        """
        from vision_client.tables import to_frame_of_all

        return to_frame_of_all(self)

    @overload
    def __getitem__(self, place: SupportsIndex) -> Result: ...
    @overload
    def __getitem__(self, place: slice) -> "Results": ...
    def __getitem__(self, place: SupportsIndex | slice) -> "Result | Results":
        return Results(super().__getitem__(place)) if isinstance(place, slice) else super().__getitem__(place)

    def _repr_html_(self) -> str:
        from vision_client.display import show_all

        return show_all(self)


def read_answer(body: bytes, picture: SentPicture | None = None) -> Prediction:
    """Return the JSON of one image. Raises PredictionError when it is not what the HTTP contract says."""
    try:
        document = json.loads(body)
        reader = next((READERS[key] for key in READERS if key in document), None)
        return _attach(Prediction(extra={**document}) if reader is None else reader(document), picture)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        start = body[:200].decode("utf-8", errors="replace")
        raise PredictionError(200, "UnexpectedAnswer", f"expected a prediction, got {start!r}") from error


def _read_classification(document: Fields) -> Classification:
    classes = tuple(
        ClassScore(int(entry["class_id"]), str(entry["label"]), float(entry["score"]), _rest(entry, ClassScore))
        for entry in document["classes"]
    )
    return Classification(classes, extra=_rest(document, Classification))


def _read_detections(document: Fields) -> Detections:
    image = ImageSize(int(document["image"]["width"]), int(document["image"]["height"]))
    found = tuple(_read_detection(entry) for entry in document["detections"])
    return Detections(found, image, extra=_rest(document, Detections))


def _read_detection(entry: Fields) -> Detection:
    x1, y1, x2, y2 = map(float, entry["box"])
    return Detection(
        class_id=int(entry["class_id"]),
        label=str(entry["label"]),
        score=float(entry["score"]),
        box=(x1, y1, x2, y2),
        corners=tuple(map(float, entry["corners"])) if "corners" in entry else None,
        extra=_rest(entry, Detection),
    )


def _read_embedding(document: Fields) -> Embedding:
    return Embedding(tuple(map(float, document["embedding"])), extra=_rest(document, Embedding))


def _read_explanation(document: Fields) -> Explanation:
    found = document["heat_map"]
    x1, y1, x2, y2 = map(float, found["box"])
    values = tuple(tuple(map(float, row)) for row in found["values"])
    if len(values) != found["height"] or any(len(row) != found["width"] for row in values):
        raise ValueError("height and width are not those of the values")
    return Explanation(
        class_id=int(document["class_id"]),
        label=str(document["label"]),
        score=float(document["score"]),
        method=str(document["method"]),
        heat_map=HeatMap(int(found["height"]), int(found["width"]), (x1, y1, x2, y2), values),
        image=ImageSize(int(document["image"]["width"]), int(document["image"]["height"])),
        extra=_rest(document, Explanation),
    )


READERS: dict[str, Callable[[Fields], Prediction]] = {
    "classes": _read_classification,
    "detections": _read_detections,
    "embedding": _read_embedding,
    "heat_map": _read_explanation,
}


def _attach(prediction: Kind, picture: SentPicture | None) -> Kind:
    object.__setattr__(prediction, "_picture", picture)  # frozen for others
    return prediction


def _write(value: Any) -> Any:
    """Return what JSON has in the place of a value: the way back of the readers."""
    if isinstance(value, tuple):
        return [_write(each) for each in value]
    if not isinstance(value, (Prediction, ClassScore, Detection, ImageSize, HeatMap)):
        return value
    known = {each.name: getattr(value, each.name) for each in fields(value) if each.name != "extra"}
    if known.get("corners", ()) is None:
        del known["corners"]  # of upright boxes
    return {name: _write(each) for name, each in known.items()} | copy.deepcopy(getattr(value, "extra", {}))


def _write_error(error: PredictionError) -> dict[str, Any]:
    return {"error": {"code": error.code, "type": error.type, "message": error.message}}


def _rest(document: Fields, known: Any) -> dict[str, Any]:
    names = {known_field.name for known_field in fields(known)}
    return {name: value for name, value in document.items() if name not in names}
