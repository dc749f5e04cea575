"""What this version changes for whoever ran an earlier one: the one place where these facts stand.

`scripts/upgrade_project.py --check` looks for each of them. CHANGELOG.md has them under "Upgrading".
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, Literal

VERSION = "0.2.0"
FRONT: Final = "front.yaml"
CONFIG: Final = "config.properties"
STATE: Final = "the state folder"
ARCHIVES: Final = "archives"
RECIPES: Final = "recipes"

Place = Literal["front.yaml", "config.properties", "the state folder", "archives", "recipes"]
# needed: a key without which the file is refused. default: ours was another. advice: a part of `vmargs` that was new.
# new: may be left out. fact: looked for by code of its own.
Kind = Literal["needed", "renamed", "default", "advice", "new", "fact"]


@dataclass(frozen=True)
class Change:
    """key: of a setting, or what a fact is about. value: of a needed key, what keeps things as they were.

    former: the earlier name, or earlier defaults.
    """

    place: Place
    key: str
    kind: Kind
    text: str
    value: str = ""
    former: tuple[str, ...] = ()

    @property
    def line(self) -> str:
        return f"{self.key}: {self.value}"


CHANGES = (
    Change(FRONT, "tls", "needed", "false is for a front behind something that has HTTPS", "true"),
    Change(FRONT, "clients", "needed", "a file with keys that is made elsewhere", "null"),
    Change(FRONT, "only_client", "needed", "the one client, where something before the front knows who asks", "null"),
    Change(FRONT, "machines", "needed", "the fronts of several machines", "null"),
    Change(FRONT, "connections_of_an_address", "needed", "the most connections of one address", "512"),
    Change(FRONT, "explanations_at_once", "needed", "the most explanations of all clients", "1"),
    Change(FRONT, "costly_of_a_client", "needed", "the most explanations and large bodies of a client", "1"),
    Change(FRONT, "form_parts", "needed", "the most parts of a form", "256"),
    Change(FRONT, "allowed_origins", "needed", "origins whose pages may ask", "[]"),
    Change(FRONT, "path_prefix", "needed", "what stands before every route", '""'),
    Change(FRONT, "playground", "needed", "a page to try the models", "false"),
    Change(
        FRONT,
        "costly_of_a_client",
        "renamed",
        "It also counts bodies above 8 MiB.",
        former=("explanations_of_a_client",),
    ),
    Change(
        FRONT,
        "concurrent_requests",
        "default",
        "With more, one client's costly requests are before another's.",
        "8",
        former=("64", "16"),
    ),
    Change(
        RECIPES,
        "box_format: cxcywh",
        "renamed",
        "It is centre and size, as before. `xywh` is corner and size now.",
        former=("boxes: xywh",),
    ),
    Change(RECIPES, "box_format: xyxy", "renamed", "It means the same.", former=("boxes: xyxy",)),
    Change(
        RECIPES,
        "limits",
        "fact",
        "Where `limits` does not say otherwise, a build sets `max_pixels_per_byte: 2000`, `max_request_pixels: "
        "200000000` and `max_explanation_share: 0.5`, and takes AVIF.",
    ),
    Change(
        CONFIG,
        "unknown keys",
        "fact",
        "A key that nobody reads, a number that is none, and a line that is not `key=value` are refused. Earlier "
        "versions passed over them.",
    ),
    Change(
        CONFIG,
        "-XX:MaxDirectMemorySize",
        "advice",
        "Without it, Java takes as much memory again as its heap.",
        "-XX:MaxDirectMemorySize=1536m",
    ),
    Change(
        CONFIG,
        "-XX:+ExitOnOutOfMemoryError",
        "advice",
        "Without it, a frontend that has no memory left may stay without answering.",
        "-XX:+ExitOnOutOfMemoryError",
    ),
    Change(
        CONFIG,
        "-XX:PretenureSizeThreshold",
        "advice",
        "Without it, all wait while a large body is copied.",
        "-XX:PretenureSizeThreshold=1m",
    ),
    Change(CONFIG, "metrics_port", "new", "Shows metrics to Prometheus. Without it there are none."),
    Change(CONFIG, "vision_logs", "new", "With `json`, all logs are JSON. Without it they stay text."),
    Change(CONFIG, "vision_samples_mb", "new", "Bounds the samples of predictions, which `sample_share` asks for."),
    Change(
        STATE,
        "front/",
        "fact",
        "`front/` stands in it: beside `config.properties`, or in `vision_state`. It was in the checkout. Where that "
        "is another folder, move it, or clients lose their keys.",
    ),
    Change(
        STATE,
        "keys",
        "fact",
        "Keys of clients, trusted keys and signatures stay valid. Tokens are made anew at each start.",
    ),
    Change(
        ARCHIVES,
        "served",
        "fact",
        "Those packed from 29 November 2026 on are served as they are, by the code that they carry. What this version "
        "changes in requests and answers comes to them with a new build.",
    ),
    Change(
        ARCHIVES,
        "refused",
        "fact",
        "Those packed from 25 to 28 November 2026 are refused, and the command that builds them again is named. Their "
        "verification counted keys with defaults, so a later version cannot check it.",
    ),
    Change(
        ARCHIVES,
        "without digests",
        "fact",
        "Those packed earlier have no `MAR-INF/DIGESTS.json`, and are served as another's are: nobody sees damage. "
        "`vision_archives=ours` refuses them, and names that command. `predict_images.py --archive` may do so too.",
    ),
)


def find_changes(place: Place, kind: Kind) -> list[Change]:
    return [change for change in CHANGES if (change.place, change.kind) == (place, kind)]


def describe_changes() -> Iterator[str]:
    """Yield the items of "Upgrading" in CHANGELOG.md, as Markdown."""
    needed = ", ".join(f"`{change.line}`" for change in find_changes(FRONT, "needed"))
    yield f"`{FRONT}` needs each of these keys. The values keep things as they were: {needed}."
    yield from (FORMS[change.kind](change) for change in CHANGES if change.kind != "needed")


FORMS: dict[Kind, Callable[[Change], str]] = {
    "renamed": lambda change: f"{NAMES[change.place]}: `{change.former[0]}` is now `{change.key}`. {change.text}",
    "default": lambda change: (
        f"`{change.place}`: `{change.line}` is the default, was {' or '.join(change.former)}. {change.text}"
    ),
    "advice": lambda change: f"`{change.place}`: put `{change.value}` into `vmargs`. {change.text}",
    "new": lambda change: f"`{change.place}`: `{change.key}` is new. {change.text}",
    "fact": lambda change: f"{NAMES[change.place]}: {change.text}",
}
NAMES: dict[Place, str] = {
    FRONT: f"`{FRONT}`",
    CONFIG: f"`{CONFIG}`",
    STATE: "The state folder",
    ARCHIVES: "Archives",
    RECIPES: "Recipes",
}
