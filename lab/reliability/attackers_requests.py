"""What the attackers of E1 to E5 send: requests that are large, many, costly or of an unknown key."""

import secrets

from lab.hostile.bombs import BOMBS
from lab.hostile.documents import DOCUMENTS, pixels, v2
from lab.hostile.forms import END, FORM, OPTIONS, RAW, numbered, part
from lab.testbed.archives import SERVED
from lab.testbed.traffic import Ask
from lab.testbed.world import load_pictures
from mar_tools.command_line import ROOT
from vision_serving.worker.server_settings import read_properties

PATH, EXPLAIN = f"/predictions/{SERVED}", f"/explanations/{SERVED}"
SHIPPED = read_properties((ROOT / "config.properties").read_text(encoding="utf-8"))
LIMIT = int(SHIPPED["max_request_size"])


def forms_of_many_parts() -> list[Ask]:
    fields = b"".join(part(b"f%d" % number, b"x", None) for number in range(400_000)) + END
    files = b"".join(numbered(230_000)) + END
    few = b"".join(part(b"f%d" % number, b"x", None) for number in range(1000)) + END
    return [Ask("form", PATH, body, FORM, 413, good=False) for body in (*[fields] * 6, files, *[few] * 100)]


def largest_bodies() -> list[Ask]:
    picture = load_pictures(1)[0]
    body = picture + bytes(LIMIT - len(picture))
    return [Ask("body", PATH, body, RAW, good=False, pause_s=0.02 * (number % 3 == 0)) for number in range(60)]


def costly_requests() -> list[Ask]:
    picture = load_pictures(1)[0]
    allowed, larger = (v2(pixels([side, side, 3], [0] * (3 * side * side))) for side in (224, 1500))
    explanations = [Ask("explanation", EXPLAIN, picture, {**RAW, OPTIONS: "cells=16"}, good=False)] * 60
    widest = [Ask("top_k", PATH, picture, {**RAW, OPTIONS: "top_k=1000"}, good=False)] * 60
    return [
        *explanations,
        *widest,
        *(Ask("tensor", PATH, it.body, it.headers, good=False) for it in [*[allowed] * 30, *[larger] * 10]),
    ]


def files_that_swell() -> list[Ask]:
    bombs = [Ask(name, PATH, bomb.make(), RAW, bomb.status, good=False) for name, bomb in BOMBS.items()]
    return bombs + [Ask(name, PATH, it.body, it.headers, it.status, good=False) for name, it in DOCUMENTS.items()]


def wrong_keys() -> list[Ask]:
    picture = load_pictures(1)[0]
    never = [{"X-Api-Key": secrets.token_urlsafe(32)} for _ in range(9000)]
    return [Ask("key", PATH, picture, {**RAW, **key}, 401, good=False) for key in [*never, *[{}] * 1000]]
