"""What processes use, and the same model in a loop without a server."""

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import TinyModel

from mar_tools.building.packing import build_archive
from mar_tools.child_processes import isolated, python_command
from mar_tools.command_line import HANDLERS
from mar_tools.load_testing.images import load_test_images
from mar_tools.load_testing.in_process import InProcessError, measure_in_process
from mar_tools.load_testing.in_process_loop import iterate_batches, run_window
from mar_tools.load_testing.measurement import Window
from mar_tools.load_testing.processes import Usage, UsageWatch
from mar_tools.verification.observations import load_handler
from vision_serving.cores import plan_threads, usable_cores

WORKER = """
import time
def burn(seconds):
    start = time.process_time()
    while time.process_time() - start < seconds:
        pass
"""
# A parent that waits for its child, which keeps 60 MB and burns 0.3 s of CPU when it is told to.
PARENT = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]])"
CHILD = f"""{WORKER}
kept = bytearray(b'x') * 60_000_000
print('ready', flush=True)
input()
burn(0.3)
more = bytearray(b'x') * 8_000_000
print('done', flush=True)
input()
"""


def test_the_cpu_time_and_memory_of_all_descendants_count() -> None:
    pipe = subprocess.PIPE
    with isolated([sys.executable, "-c", PARENT, CHILD], stdin=pipe, stdout=pipe, bufsize=0) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        with UsageWatch([process.pid]) as watch:
            watch.begin()
            process.stdin.write(b"\n")
            assert process.stdout.readline() == b"done\n"
            watch.end()
    usage = watch.usage
    assert usage.cpu_s is not None
    assert usage.cpu_s >= 0.28, "the kernel counts in steps of 10 ms"
    assert usage.root_cpu_s is not None
    assert usage.root_cpu_s < 0.1, "the parent only waits"
    assert usage.client_cpu_s is not None
    assert usage.page_faults, "for 8 MB that nobody had written to"
    assert usage.preemptions is not None
    assert usage.peak_rss_mb is not None
    assert usage.peak_rss_mb >= 60
    assert usage.peak_process_mb is not None
    assert 60 <= usage.peak_process_mb < usage.peak_rss_mb, "the child alone"
    assert usage.peak_pss_mb is not None
    assert 60 <= usage.peak_pss_mb <= usage.peak_rss_mb, "the two share an interpreter"


def test_only_the_time_between_begin_and_end_is_charged() -> None:
    code = WORKER + "burn(0.3)\nprint('ready', flush=True)\ninput()"
    pipe = subprocess.PIPE
    with isolated([sys.executable, "-c", code], stdin=pipe, stdout=pipe, bufsize=0) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with UsageWatch([process.pid]) as watch:
            watch.begin()
            watch.end()
    assert watch.usage.cpu_s is not None
    assert watch.usage.cpu_s < 0.2


def test_without_processes_nothing_is_said() -> None:
    with UsageWatch([]) as watch:
        watch.begin()
        watch.end()
    assert watch.usage == Usage(None, None, None, None)


def test_images_are_distinct_of_one_size_and_the_same_each_time() -> None:
    images = load_test_images(count=90, size=(96, 64))
    assert len(set(images)) == 90
    assert images[:3] == load_test_images(count=3, size=(96, 64))
    assert load_test_images(count=1)[0].startswith(b"\xff\xd8")


def test_batches_go_round_and_round_and_are_full() -> None:
    batches = iterate_batches([b"a", b"b", b"c"], 2)
    assert [next(batches) for _ in range(3)] == [[b"a", b"b"], [b"c", b"a"], [b"b", b"c"]]


def test_a_window_has_the_batches_that_end_in_it_or_one(tiny_classifier: TinyModel) -> None:
    handler = load_handler(tiny_classifier.folders["eager"])
    batches = iterate_batches([*load_test_images(2, (64, 48)), b"not an image"], 3)
    (batch,) = run_window(handler, batches, Window(start=0, end=0))
    assert batch["statuses"] == [200, 200, 400]
    assert batch["timing"].startswith("decode;dur=")


@pytest.mark.parametrize(("source", "processes"), [("folder", 2), ("archive", 1)])
def test_p_answers_batches_in_processes(
    tiny_classifier: TinyModel, source: str, processes: int, tmp_path: Path
) -> None:
    export = tiny_classifier.folders["openvino"]
    if source == "archive":
        export = build_archive(export, HANDLERS, tmp_path)
    threads = plan_threads(usable_cores(), processes).engine
    found = measure_in_process(
        export, load_test_images(4, (64, 48)), processes, threads, 3, duration_s=0.5, warm_up_s=0.1
    )
    assert found.requests > 0
    assert found.requests % 3 == 0
    assert (found.failed, found.wrong, found.batch_size) == (0, 0, 3.0)
    assert found.stages_ms.keys() >= {"decode", "preprocess", "inference", "postprocess"}
    assert found.cpu_ms_per_request is not None
    assert found.cpu_ms_per_request > 0
    assert found.peak_rss_mb is not None
    assert found.peak_rss_mb > 50 * processes, "interpreters with torch"


def test_a_model_that_cannot_be_loaded_says_why(tiny_classifier: TinyModel, tmp_path: Path) -> None:
    (tmp_path / "model-config.yaml").write_text("handler: {task: classification}")
    with pytest.raises(InProcessError, match=r"the model in process: ConfigError: .*model-config\.yaml"):
        measure_in_process(tmp_path, load_test_images(1, (64, 48)), 1, usable_cores(), 1, 0.1)


def test_the_loops_process_is_found_by_its_name() -> None:
    finished = subprocess.run(
        python_command("mar_tools.load_testing.in_process_loop"), input=b"{}\n", capture_output=True
    )
    assert finished.returncode == 1
    assert b'"problem":"ValidationError' in finished.stdout
