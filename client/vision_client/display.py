"""Results -> HTML for notebooks: the picture with what was found, and a table. All texts of others are escaped.

The picture is an SVG in an `<img>`, where nothing can run. Colours are those of the page, light or dark.
"""

import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any
from urllib.parse import quote

from vision_client.drawing import colour_of, draw
from vision_client.errors import PredictionError
from vision_client.label_places import clean
from vision_client.pictures import SentPicture
from vision_client.results import Classification, Detections, Embedding, Explanation, Prediction, Result

ROWS = 20
TILES = 24
TILE_SIDE = 200
MOST_CHARACTERS = 80
MOST_JSON = 2000
NUMBERS = 8  # of an embedding
LABELS = 5  # of different ones in a line
# What drawing raises for a picture that is gone or of another size, without Pillow, and for fields of another form.
NOT_DRAWN = (PredictionError, ValueError, ImportError, LookupError, TypeError, AttributeError, ArithmeticError)
URL_CHARACTERS = "/+:;,= ()!*'"


def show(prediction: Prediction, picture: SentPicture | None) -> str:
    """Return the picture beside the table of one result; a line says why where there is no picture."""
    image, reason = _draw_image(prediction, picture)
    note = "" if reason is None or picture is None else f"<div><small>{_text(reason, 200)}</small></div>"
    parts = [f'<div style="flex:0 1 auto;min-width:0">{image}</div>'] if image else []
    parts.append(f'<div style="flex:1 1 auto">{_describe(prediction)}{note}</div>')
    return f'<div style="display:flex;flex-wrap:wrap;gap:1em;align-items:flex-start">{"".join(parts)}</div>'


def show_all(results: Sequence[Result]) -> str:
    """Return how many results there are, and the first of them as tiles."""
    failed = sum(isinstance(result, PredictionError) for result in results)
    told = [f"{len(results)} image{'s' * (len(results) != 1)}"]
    told += [f"{failed} failed"] * bool(failed)
    told += [f"the first {TILES} are shown"] * (len(results) > TILES)
    tiles = "".join(_tile(number, result) for number, result in enumerate(results[:TILES]))
    return f'<div>{", ".join(told)}</div><div style="display:flex;flex-wrap:wrap;gap:1em">{tiles}</div>'


def _tile(number: int, result: Result) -> str:
    picture = result._picture if isinstance(result, Prediction) else None
    image = (
        _draw_image(result, picture, longest_side=TILE_SIDE, labelled=0)[0] if isinstance(result, Prediction) else ""
    )
    name = f"{number} · {_text(picture.name, 40)}" if picture is not None and picture.name else f"{number}"
    return (
        f'<div style="width:{TILE_SIDE}px;overflow-wrap:anywhere">{image}'
        f"<div><small>{name}</small></div><div>{_sum_up(result)}</div></div>"
    )


def _draw_image(prediction: Prediction, picture: SentPicture | None, **size: int) -> tuple[str, str | None]:
    """Return an <img>, or nothing and the reason."""
    try:
        svg = draw(prediction, picture, **size)
    except NOT_DRAWN as error:
        return "", str(error)
    url = f"data:image/svg+xml,{quote(svg, safe=URL_CHARACTERS)}"
    alternative = _text(" ".join(_words(prediction)), 300)
    return f'<img src="{url}" alt="{alternative}" style="max-width:100%;height:auto"/>', None


def _describe(prediction: Prediction) -> str:
    if isinstance(prediction, Classification):
        return _table(prediction.classes, "no class") + _more(prediction.classes)
    if isinstance(prediction, Detections):
        return _table(prediction.detections, "nothing found") + _more(prediction.detections)
    if isinstance(prediction, Explanation):
        legend = f"{_text(prediction.method)}: red speaks for the class, blue against it"
        return f"{_table([prediction], '')}<small>{legend}</small>"
    if isinstance(prediction, Embedding):
        return f"<code>{escape(' '.join(_words(prediction)))}</code>"
    written = json.dumps(prediction.to_dict(), indent=1, ensure_ascii=False, default=str)
    lines = "\n".join(_text(line) for line in written[:MOST_JSON].split("\n"))
    return f"<pre>{lines}{' …' * (len(written) > MOST_JSON)}</pre>"


def _table(entries: Sequence[Any], without: str) -> str:
    """Return a row each: colour, label, score and a bar as long as the score."""
    if not entries:
        return f"<em>{without}</em>"
    rows = "".join(_row(entry) for entry in entries[:ROWS])
    return f"<table><thead><tr><th>label</th><th>score</th><th></th></tr></thead><tbody>{rows}</tbody></table>"


def _row(entry: Any) -> str:
    colour = colour_of(entry.class_id)
    share = 0 if math.isnan(entry.score) else round(100 * min(1.0, max(0.0, entry.score)))
    bar = f'<div style="width:{share}px;height:.7em;background:{colour}"></div>'
    label = f'<span style="color:{colour}">&#9632;</span> {_text(entry.label)}'
    return (
        f'<tr><td style="text-align:left">{label}</td><td>{entry.score:.3f}</td>'
        f'<td style="min-width:100px">{bar}</td></tr>'
    )


def _more(entries: Sequence[Any]) -> str:
    more = len(entries) - ROWS
    return f"<small>and {more} more: to_pandas() has all</small>" if more > 0 else ""


def _sum_up(result: Result) -> str:
    """Return one line on a result: the best class, or how many of what."""
    if isinstance(result, PredictionError):
        return f"&#9888; {_text(str(result), 160)}"
    return _text(" ".join(_words(result)), 160)


def _words(prediction: Prediction) -> Iterable[str]:
    if isinstance(prediction, Explanation):
        return [f"{prediction.label} {prediction.score:.3f}", f"({prediction.method})"]
    if isinstance(prediction, Classification):
        return [f"{entry.label} {entry.score:.3f}" for entry in prediction.classes[:1]] or ["no class"]
    if isinstance(prediction, Detections):
        counts = Counter(found.label for found in prediction.detections).most_common(LABELS)
        labels = ", ".join(label if count == 1 else f"{label} ({count})" for label, count in counts)
        return [f"{len(prediction.detections)} found", f"- {labels}" * bool(labels)]
    if isinstance(prediction, Embedding):
        first = ", ".join(f"{value:.3g}" for value in prediction.embedding[:NUMBERS])
        length = math.hypot(*prediction.embedding)
        return [f"{len(prediction.embedding)} numbers, length {length:.3g}: {first}", "…"]
    return [", ".join(prediction.extra)]


def _text(text: str, most: int = MOST_CHARACTERS) -> str:
    """Return text that others chose as HTML without any meaning of its own."""
    return escape(clean(text, most))
