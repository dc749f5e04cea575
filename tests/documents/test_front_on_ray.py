"""Ray Serve is a second server of the front's contract: its routes, headers and tensors are those of the front."""

import re

import pytest
from markdown_pages import read_page

from mar_tools.ray_serving.forms import PASSED
from mar_tools.ray_serving.metadata import INPUTS, OUTPUTS
from mar_tools.ray_serving.routes import find_route

PAGE, SCRIPT = read_page("docs/operate/front.md"), read_page("deploy/nginx/front.js")
NAMED = {path for row in re.findall(r"^\| (`/.*?) \|", PAGE, re.MULTILINE) for path in re.findall(r"`(/\S+?)`", row)}
# What stands in brackets may be left out.
PATHS = sorted({re.sub(r"\[(.*?)\]", kept, path) for path in NAMED for kept in ("", r"\1")})


@pytest.mark.parametrize("path", PATHS)
def test_each_route_of_the_front_is_one_of_ray(path: str) -> None:
    route = find_route(re.sub(r"\{\w+\}", "digits", path))
    assert route is not None
    assert route.predicts == bool(re.search(r"predict|explan|infer", path))


def test_the_page_of_the_front_names_its_routes() -> None:
    assert {"/predictions/{model}", "/v1/models/{model}:predict", "/v2/models/{model}/infer", "/ping"} <= set(PATHS)


def test_the_headers_that_reach_a_model_are_those_of_the_front() -> None:
    [passed] = re.findall(r"^const PASSED = \[(.*)\];", SCRIPT, re.MULTILINE)
    assert set(PASSED) == {*re.findall(r"'([\w-]+)'", passed)}


def test_the_tensors_of_each_task_are_those_of_the_front() -> None:
    told = {
        (name, datatype, shape)
        for name, datatype, shape in re.findall(r"\{name: '(\w+)', datatype: '(\w+)', shape: \[([-\d, ]+)\]\}", SCRIPT)
    }
    ours = [*INPUTS, *(tensor for tensors in OUTPUTS.values() for tensor in tensors)]
    assert {(each["name"], each["datatype"], ", ".join(map(str, each["shape"]))) for each in ours} == told
    [tasks] = re.findall(r"^const OUTPUTS = \{(.*?)^\};", SCRIPT, re.MULTILINE | re.DOTALL)
    assert set(OUTPUTS) == set(re.findall(r"^    (\w+):", tasks, re.MULTILINE))
