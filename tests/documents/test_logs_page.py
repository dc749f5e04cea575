"""The page of logs: its lines have the keys that are written, and its costs are those that were measured."""

import json
import re
import statistics

from markdown_pages import read_page

from vision_serving.answers.responses import ModelIdentity, Response
from vision_serving.errors import ImageDecodeError
from vision_serving.results.outcome import Outcome
from vision_serving.worker.correlation import read_correlation
from vision_serving.worker.failure_log import Answered, describe_failure

PAGE = read_page("docs/operate/logs.md")
AT_FRONT, OF_WORKER = (json.loads(line) for line in re.findall(r"```json\n(.*)\n```", PAGE))
COSTS = {
    "no traces, a request that succeeds": "off_us",
    "the line of a failed request": "failed_us",
    "traces on, not sampled by the caller": "not_sampled_us",
    "sampled": "sampled_us",
    "sampled, nobody receives": "sampled_dead_receiver_us",
    "sampled, the receiver never answers": "sampled_hanging_receiver_us",
}


def test_the_line_of_the_front_is_the_one_that_nginx_writes() -> None:
    [written] = re.findall(
        r"log_format json_lines escape=json (.*?);\n", read_page("deploy/nginx/nginx.conf"), re.DOTALL
    )
    assert list(AT_FRONT) == re.findall(r'"(\w+)":', written)


def test_the_line_of_a_worker_is_the_one_that_it_writes() -> None:
    answered = Answered(read_correlation({}), Outcome((ImageDecodeError("broken"),)), Response(400, b""))
    written = describe_failure(answered, ModelIdentity("digits", "1.0"), 4)
    assert list(written) == list(OF_WORKER)
    assert {name: type(value) for name, value in written.items()} == {
        name: type(value) for name, value in OF_WORKER.items()
    }


def test_the_costs_are_those_of_the_results() -> None:
    rounds = json.loads(read_page("lab/results/performance/tracing.json"))["rounds"]
    stated = {name: int(figure) for name, figure in re.findall(r"^\| (.*) \| (\d+) \|$", PAGE, re.MULTILINE)}
    assert stated == {name: round(statistics.median(each[key] for each in rounds)) for name, key in COSTS.items()}
