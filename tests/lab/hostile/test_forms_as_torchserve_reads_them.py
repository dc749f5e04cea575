"""What the front counts as the parts of a form is what TorchServe's HTTP library sees, however a form is spelled."""

import json
import random
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import pytest
import requests
import yaml
from conftest import examples

from mar_tools.command_line import ROOT
from mar_tools.front.front import SETTINGS, Front
from mar_tools.front.nginx import NginxError, find_nginx
from mar_tools.serving.config_file import with_absolute_paths
from mar_tools.serving.ports import find_free_ports
from mar_tools.serving.temporary_server import temporary_server

MOST_PARTS, MOST_WRITTEN = 4, 8
TIMEOUT_S = 60
CONNECTIONS = 8
REFUSED_BY_FRONT = {"FormError", "TooManyPartsError", "UnsupportedMediaTypeError"}
# A model that says how many parts of a form came, of which a worker keeps one a name.
COUNTER = """
import json
from ts.service import Service

read = Service.retrieve_data_for_inference

def read_and_count(batch):
    headers, inputs, ids = read(batch)
    return headers, [len(request["parameters"]) for request in batch], ids

Service.retrieve_data_for_inference = staticmethod(read_and_count)

def handle(data, context):
    return None if data is None else [json.dumps(count) for count in data]
"""
MANIFEST = {
    "createdOn": "29/11/2026 00:00:00", "runtime": "python", "archiverVersion": "0.12.0",
    "model": {"modelName": "counter", "modelVersion": "1.0", "handler": "counter.py"},
}  # fmt: skip


class Form(NamedTuple):
    """As it is sent. written: delimiters that begin a part, for whoever looks for them in the whole body."""

    kind: str
    body: bytes
    written: int


class Doors(NamedTuple):
    """TorchServe's own port and the front's, each with what a client of it sends along."""

    server: str
    token: dict[str, str]
    front: str
    key: dict[str, str]
    certificate: str

    def ask(self, form: Form, through_front: bool) -> requests.Response:
        url, own = (self.front, self.key) if through_front else (self.server, self.token)
        headers: dict[str, str | bytes] = {"Content-Type": form.kind.encode("latin-1"), **own}
        return requests.post(
            f"{url}/predictions/counter", form.body, headers=headers, verify=self.certificate, timeout=TIMEOUT_S
        )


@pytest.fixture(scope="module")
def doors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Doors]:
    try:
        find_nginx()
    except NginxError as error:
        pytest.skip(str(error))
    folder = tmp_path_factory.mktemp("doors")
    with zipfile.ZipFile(folder / "counter.mar", "w") as archive:
        archive.writestr("MAR-INF/MANIFEST.json", json.dumps(MANIFEST))
        archive.writestr("counter.py", COUNTER)
    properties = with_absolute_paths((ROOT / "config.properties").read_text(encoding="utf-8"), ROOT)
    with temporary_server([folder / "counter.mar"], properties, ROOT / "log4j2.xml") as server:
        shipped = yaml.safe_load(SETTINGS.read_text(encoding="utf-8"))
        limits = {
            "form_parts": MOST_PARTS,
            "requests_per_s": 10_000,
            "burst": 10_000,
            "connections_of_an_address": 10_000,
        }
        listen = f"127.0.0.1:{find_free_ports(1)[0]}"
        (folder / "front.yaml").write_text(yaml.safe_dump({**shipped, **limits, "listen": listen}))
        front = Front(folder / "front", folder / "front.yaml", server.config)
        key = front.start()
        assert key is not None
        try:
            yield Doors(
                f"http://127.0.0.1:{server.ports()['inference_address']}",
                {"Authorization": f"Bearer {server.client.token('inference')}"},
                front.url,
                {"X-Api-Key": key},
                str(front.certificate),
            )
        finally:
            front.stop()


BOUNDARIES = ["b", "--", "-", "b-b", "WebKit'()+,./:=?-_", "x" * 70, "1" * 9, "b--b", "b=c", "multipart"]
# B stands for the boundary.
KINDS = [
    "multipart/form-data; boundary=B", 'multipart/form-data; boundary="B"', "Multipart/Form-Data;BOUNDARY=B",
    "multipart/form-data; charset=utf-8; boundary=B", 'multipart/form-data; boundary="B"; charset=US-ASCII',
    "multipart/form-data ; boundary=B", "multipart/form-data;\tboundary=B", "multipart/form-data; boundary = B",
    "multipart/form-data; boundary=B;", "multipart/form-data; boundary=B ", "multipart/form-data; boundary=B; x=y",
    "multipart/form-data; x=y; boundary=B", "multipart/form-data; boundary=other; boundary=B",
    "multipart/form-data; boundary=B; boundary=other", 'multipart/form-data; boundary="other"; boundary=B',
    "multipart/form-data; charset=utf-16; boundary=B", "multipart/form-data; charset=IBM037; boundary=B",
    'multipart/form-data; boundary="B', 'multipart/form-data; boundary=B"', "multipart/form-data; boundary='B'",
    "multipart/form-data; boundary*=utf-8''B", "multipart/form-data, boundary=B", "multipart/mixed; boundary=B",
    "multipart/form-data; a=\"; boundary=other\"; boundary=B", "multipart/form-data; boundary=B, text/plain",
    "multipart/form-data;boundary=B;charset=ISO-8859-1", 'multipart/form-data; boundary="\\B"', "multipart/form-data",
    "multipart/form-data; xboundary=other; boundary=B", "multipart/form-dataX; boundary=B",
]  # fmt: skip
INNER = b"".join(
    b"--y\r\nContent-Disposition: file; filename=%d\r\n\r\nx\r\n" % number for number in range(MOST_WRITTEN)
)
MIXED = [
    b"Content-Type: multipart/mixed; boundary=y", b"content-type:Multipart/Mixed;boundary=y",
    b"Content-Type: multipart/mixed, boundary=y", b"Content-Type : multipart/mixed; boundary=y",
    b"Content-Type: text/plain; multipart/mixed; boundary=y", b'Content-Type: "multipart/mixed"; boundary="y"',
    b"Content-Type:\tmultipart/mixed; boundary=y", b"Content-Type: \xa0multipart/mixed; boundary=y",
    b"Content-Type=multipart/mixed; boundary=y",
    b"Content-Type: text/plain\r\nContent-Type: multipart/mixed; boundary=y",
    b"X: y\rContent-Type: multipart/mixed; boundary=y", b"X: y\nContent-Type: multipart/mixed; boundary=y",
    b"\x01Content-Type: multipart/mixed; boundary=y", b"Content-Type: multipart/form-data; boundary=y",
    b"Content-Type: multipart/mixed; charset=utf-8; boundary=y", b"Content-Type: multipart/mixed; b=c; boundary=y",
]  # fmt: skip
NAMES = [
    b'Content-Disposition: form-data; name="a"', b'content-disposition:form-data;name=a; filename="a.png"',
    b'Content-Disposition: form-data; name="a"; filename*=utf-8\'\'%c3%a9',
    b'Content-Disposition: form-data; name="\xc3\xa9"',
    b'Content-Disposition: form-data; name="a\\"b"', b'Content-Disposition: form-data; name="a;b"; filename=""',
    b"Content-Disposition: form-data; name=a; size=1000000", b'Content-Disposition: attachment; name="a"; filename="b"',
    b'Content-Disposition: form-data; filename="b"', b"Content-Disposition: form-data",
    b'Content-Disposition: file; name="a"',
    b'Content-Disposition: form-data; name="' + b"n" * 300 + b'"', b'Content-Disposition: form-data; name=""; name="a"',
    b"Content-Disposition: form-data; name*=foo''a", b'Content-Disposition: form-data; name="a"; charset=foo',
]  # fmt: skip
LINES = [
    b"Content-Type: image/png", b"Content-Type: text/plain; charset=utf-8", b"Content-Type: text/plain; charset=utf-16",
    b"Content-Type: text/plain; charset=IBM037", b"Content-Length: 1", b"Content-Length: 99999", b"Content-Length: x",
    b"Content-Transfer-Encoding: 8bit", b"Content-Transfer-Encoding: base64", b"Content-Transfer-Encoding:Binary",
    b"X: y", b"X", b": y", b" folded", b"Content-Disposition", b"Content-Type", b"X: " + b"y" * 9000, b"--", b"--y",
]  # fmt: skip
# What stands before a delimiter, and behind it.
BEFORE = [b"\r\n"] * 12 + [b"\n", b"\r", b"", b"\r\n\r\n", b"\r\n ", b"\n\r\n", b"\r\r\n"]
BEHIND = [b"\r\n"] * 12 + [b"\n", b"\r", b" \r\n", b"\t\r\n", b"--\r\n", b"--", b"-\r\n", b"x\r\n", b"\r\n\r\n", b""]
ODD = [
    b"\0", b"\x01", b"\t", b"\n", b"\x0b", b"\x0c", b"\r", b"\r\n", b"\x1b", b"\x1c", b"\x1f", b" ", b'"', b"'", b",",
    b"-",
    b"--", b":", b";", b"=", b"\\", b"\x7f", b"\x80", b"\x85", b"\xa0", b"\xad", b"\xff", b"\xc2\x85", b"\xe2\x80\xa8",
    b"\xef\xbb\xbf", b"\xef\xbf\xbd", b"\xf0\x9f\x98\x80", b"%", b"*", b"\r\n\r\n",
]  # fmt: skip


def make_form(choose: random.Random) -> Form:
    """A form of one to MOST_WRITTEN parts, some of whose pieces are odd; the fewer, the more often."""
    boundary = choose.choice(BOUNDARIES)
    oddness = choose.choice([0.0, 0.0, 0.05, 0.2])
    mark = b"--" + boundary.encode()
    body = choose.choice([b"", b"", b"\r\n", b"x", b"x\r\n", b"\n"]) if choose.random() < oddness else b""
    count = choose.choice([1, 2, 2, 3, 3, 4, 4, 4, 5, MOST_WRITTEN])
    for number in range(count):
        usual = choose.random() >= oddness
        before, behind = (b"\r\n", b"\r\n") if usual else (choose.choice(BEFORE), choose.choice(BEHIND))
        body += (before if number else b"") + mark + behind + make_part(choose, oddness)
    body += b"\r\n" + mark + (b"--\r\n" if choose.random() >= oddness else choose.choice(BEHIND))
    if choose.random() < 2 * oddness:
        at = choose.randrange(len(body))
        body = body[:at] + choose.choice(ODD) + body[at + choose.randrange(2) :]
    kind = choose.choice(KINDS if choose.random() < 0.3 else KINDS[:3]).replace("B", boundary)
    return Form(kind, body, body.count(mark) - body.count(mark + b"--"))


def make_part(choose: random.Random, oddness: float) -> bytes:
    def odd() -> bool:
        return choose.random() < oddness

    lines = [choose.choice(NAMES) if odd() else NAMES[choose.randrange(3)]]
    lines += [choose.choice(LINES)] if odd() else []
    lines += [choose.choice(MIXED)] if choose.random() < max(oddness, 0.03) else []
    header = b"\r\n".join(choose.sample(lines, len(lines)) if odd() else lines)
    if odd():
        at = choose.randrange(len(header))
        header = header[:at] + choose.choice(ODD) + header[at + choose.randrange(2) :]
    return header + b"\r\n\r\n" + (INNER if b"boundary=" in header else b"x" * choose.randrange(3))


def count_seen(answer: requests.Response) -> int | None:
    """The parts that reached a worker, None where none did."""
    return int(answer.text) if answer.status_code == 200 else None


def test_torchserve_sees_no_more_parts_than_the_front_counts(doors: Doors) -> None:
    choose = random.Random(16)
    forms = [make_form(choose) for _ in range(examples(600))]
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        passed = list(pool.map(lambda form: doors.ask(form, through_front=True), forms))
        bare = list(pool.map(lambda form: count_seen(doors.ask(form, through_front=False)), forms))
    seen = [count_seen(answer) for answer in passed]
    more = [
        (count, form) for form, count in zip(forms, seen, strict=True) if (count or 0) > min(form.written, MOST_PARTS)
    ]
    assert more == []
    # The forms are such as tell the two apart: each way occurs.
    hidden = sum((count or 0) > form.written for form, count in zip(forms, bare, strict=True))
    taken = [(one, other) for one, other in zip(seen, bare, strict=True) if one is not None]
    refused = [answer.json()["type"] for answer in passed if answer.status_code in (400, 413, 415)]
    print(
        f"{len(forms)} forms: {len(taken)} passed, {len(refused)} refused, {hidden} hide parts, {bare.count(None)} fail"
    )
    assert {one == other for one, other in taken} == {True}
    assert hidden > len(forms) / 200
    assert len(taken) > len(forms) / 10
    assert set(refused) >= REFUSED_BY_FRONT
