"""The front's three lists of headers are one, and so are its lists of probes: page, nginx.conf, routes, front.js."""

import re

import pytest
from markdown_pages import read_page

CONF, SCRIPT = read_page("deploy/nginx/nginx.conf"), read_page("deploy/nginx/front.js")
PAGE = read_page("docs/operate/front.md")
ROUTES = [read_page(f"deploy/nginx/{front}/routes.conf") for front in ("torchserve", "fleet")]


def read_headers(beginning: str) -> set[str]:
    """Return what a line of the page's list names."""
    [line] = re.findall(rf"^- {beginning}: (.*)$", PAGE, re.MULTILINE)
    return set(re.findall(r"`([\w-]+)`", line))


def test_the_headers_that_reach_torchserve_are_those_of_the_page() -> None:
    """`Content-Length`, `Host` and `Connection` are what nginx itself says to a server behind it."""
    [server] = re.findall(r"proxy_pass_request_headers off;(.*?)proxy_hide_header", CONF, re.DOTALL)
    sent = set(re.findall(r"proxy_set_header ([\w-]+)", server)) - {"Host", "Connection"}
    plain = read_headers("the client's if they are .*?")
    assert sent == (read_headers("from the client") | plain | read_headers("set by the front")) - {"Content-Length"}


def test_the_headers_of_a_client_that_pass_are_counted() -> None:
    [passed] = re.findall(r"^const PASSED = \[(.*)\];", SCRIPT, re.MULTILINE)
    assert set(re.findall(r"'([\w-]+)'", passed)) == read_headers("from the client") - {"Content-Length"}


@pytest.mark.parametrize("routes", ROUTES, ids=["before TorchServe", "before several machines"])
def test_the_probes_of_the_files_are_those_of_the_page(routes: str) -> None:
    [probes] = re.findall(r"^const PROBES = \[(.*?)^\];", SCRIPT, re.MULTILINE | re.DOTALL)
    answered = [path.replace("\\/", "/") for path in re.findall(r"/\^(\S+)\$/", probes)]
    [location] = re.findall(r"location ~ \^@\{path_prefix\}/\(([\w/|]+)\)\\z \{\n +limit_req zone=probes", routes)
    named = re.findall(r"`(/[\w/]+)`", "".join(re.findall(r"^\| (.*) \| GET, no key \|", PAGE, re.MULTILINE)))
    assert sorted(answered) == sorted(f"/{path}" for path in location.split("|")) == sorted(named)
