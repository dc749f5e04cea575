"""A Java that does little but collect memory, and never runs out of it: what `watch` sees of it."""

import shutil
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from mar_tools.serving import watching
from mar_tools.serving.watching import Signs
from mar_tools.waiting import wait_until

# Nearly as many objects as fit, each of which is replaced again and again.
SOURCE = """
import java.util.*;
public class Full {
    public static void main(String[] shares) throws Exception {
        List<byte[]> kept = new ArrayList<>();
        Runtime java = Runtime.getRuntime();
        long most = (long) (java.maxMemory() * Double.parseDouble(shares[0]));
        while (java.totalMemory() - java.freeMemory() < most) kept.add(new byte[64]);
        for (int place = 0; ; place = (place + 1) % kept.size()) {
            kept.set(place, new byte[64]);
            if (shares.length > 1 && place % 1000 == 0) Thread.sleep(1);
        }
    }
}
"""


@pytest.mark.skipif(not (shutil.which("javac") and shutil.which("java")), reason="no Java with a compiler is installed")
@pytest.mark.parametrize(("options", "is_at_fault"), [(["0.93"], True), (["0.3", "rests"], False)], ids=["full", "not"])
def test_a_frontend_in_endless_collection_is_at_fault_though_it_answers(
    options: list[str], is_at_fault: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "SILENT_S", 3.0)
    (tmp_path / "Full.java").write_text(SOURCE)
    subprocess.run(["javac", "-d", str(tmp_path), str(tmp_path / "Full.java")], check=True)
    flags = ("-Xmx100m", "-XX:+UseSerialGC", "-XX:+ExitOnOutOfMemoryError")
    server = SimpleNamespace(answers=lambda timeout_s: True)
    with subprocess.Popen(["java", *flags, "-cp", str(tmp_path), "Full", *options]) as java:
        try:
            signs = Signs(psutil.Process(java.pid), time.monotonic)
            faults: list[str] = []

            def find() -> bool:
                faults.extend(filter(None, [signs.find_fault(server)]))  # type: ignore[arg-type]
                return bool(faults)

            assert wait_until(find, 90.0 if is_at_fault else 6.0, 0.5) == is_at_fault
            assert all(fault.startswith("collected memory for ") for fault in faults)
            assert java.poll() is None
        finally:
            java.kill()
