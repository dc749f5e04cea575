"""Results -> pandas: a row for each class or detection. The names are those of the server's CSV."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from vision_client.results import Classification, Detections, Embedding, Prediction, Result

if TYPE_CHECKING:
    import pandas

Row = dict[str, Any]
SCORES = ("class_id", "label", "score")
# Names of the four numbers of a box, by the form that the request asked for.
BOX_COLUMNS = {
    "xyxy": ("x1", "y1", "x2", "y2"),
    "xywh": ("x", "y", "width", "height"),
    "xyxyn": ("x1", "y1", "x2", "y2"),
    "xywhn": ("x", "y", "width", "height"),
}
TYPES = {"class_id": "int64", "label": "str", "score": "float64"}


def to_frame(prediction: Prediction) -> "pandas.DataFrame":
    """Return a row for each class or detection, and one of anything else. Raises ImportError without pandas."""
    pandas = _import_pandas()
    rows = list_rows(prediction)
    if rows:
        return pandas.DataFrame(rows)
    columns = list_columns(prediction)
    return pandas.DataFrame({name: pandas.Series(dtype=TYPES.get(name, "float64")) for name in columns})


def to_frame_of_all(results: Sequence[Result]) -> "pandas.DataFrame":
    """Return the rows of all images, each with its number and the path that was given."""
    pandas = _import_pandas()
    rows: list[Row] = []
    columns: dict[str, None] = {"image": None}
    for number, result in enumerate(results):
        place: Row = {"image": number}
        if isinstance(result, Prediction):
            if result._picture is not None and result._picture.path is not None:
                place["file"] = result._picture.path
            found = list_rows(result)
            columns |= dict.fromkeys((*place, *list_columns(result)))
        else:
            found = [{"error": str(result)}]
        rows += [{**place, **row} for row in found or [{}]]
    columns |= dict.fromkeys(name for row in rows for name in row if name != "error")
    if any("error" in row for row in rows):
        columns["error"] = None
    return pandas.DataFrame(rows, columns=list(columns))


def list_rows(prediction: Prediction) -> list[Row]:
    """Return the rows of one answer, with what the package does not know by name as further columns."""
    if isinstance(prediction, Classification):
        return [{**_scores(entry), **entry.extra} for entry in prediction.classes]
    if isinstance(prediction, Detections):
        names = list_columns(prediction)[len(SCORES) :]
        return [
            {
                **_scores(found),
                **dict(zip(names, found.box)),
                **({} if found.corners is None else {"corners": found.corners}),
                **found.extra,
            }
            for found in prediction.detections
        ]
    if isinstance(prediction, Embedding):
        return [{str(number): value for number, value in enumerate(prediction.embedding)}]
    return [{name: value for name, value in prediction.to_dict().items() if not isinstance(value, (dict, list))}]


def list_columns(prediction: Prediction) -> tuple[str, ...]:
    """Return the columns that an answer has whatever was found."""
    if isinstance(prediction, Classification):
        return SCORES
    if isinstance(prediction, Detections):
        return (*SCORES, *BOX_COLUMNS.get(prediction.extra.get("box_format", "xyxy"), BOX_COLUMNS["xyxy"]))
    return ()


def _scores(entry: Any) -> Row:
    return {name: getattr(entry, name) for name in SCORES}


def _import_pandas() -> Any:
    try:
        import pandas
    except ImportError as error:
        raise ImportError("to_pandas() needs pandas, which is not installed: pip install pandas") from error
    return pandas
