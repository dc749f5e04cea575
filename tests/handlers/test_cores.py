import os
from pathlib import Path

import pytest

from vision_serving import cores
from vision_serving.cores import ThreadPlan, cgroup_cores, plan_threads, usable_cores


@pytest.fixture
def cgroup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder where the kernel's quota files would be."""
    monkeypatch.setattr(cores, "CGROUP_V2_ROOT", tmp_path / "v2")
    monkeypatch.setattr(cores, "CGROUP_V1_ROOT", tmp_path / "v1")
    monkeypatch.setattr(cores, "OWN_CGROUPS", tmp_path / "own")
    (tmp_path / "v1").mkdir()
    (tmp_path / "v2/system.slice/server.service").mkdir(parents=True)
    return tmp_path


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        pytest.param({}, None, id="no cgroup"),
        pytest.param({"v2/cpu.max": "max 100000\n"}, None, id="v2 unlimited"),
        pytest.param({"v2/cpu.max": "200000 100000\n"}, 2.0, id="v2 two cores"),
        pytest.param({"v2/cpu.max": "50000 100000\n"}, 0.5, id="v2 half a core"),
        pytest.param({"v1/cpu.cfs_quota_us": "-1\n", "v1/cpu.cfs_period_us": "100000\n"}, None, id="v1 unlimited"),
        pytest.param({"v1/cpu.cfs_quota_us": "150000\n", "v1/cpu.cfs_period_us": "100000\n"}, 1.5, id="v1"),
        pytest.param({"v1/cpu.cfs_quota_us": "150000\n"}, None, id="v1 without period"),
        pytest.param(
            {"own": "0::/system.slice/server.service\n", "v2/system.slice/server.service/cpu.max": "max 100000"},
            None,
            id="own v2 unlimited",
        ),
        pytest.param(
            {
                "own": "0::/system.slice/server.service\n",
                "v2/system.slice/server.service/cpu.max": "300000 100000",
                "v2/system.slice/cpu.max": "200000 100000",
            },
            2.0,
            id="the least up to the root",
        ),
        pytest.param(
            {"own": "4:cpu,cpuacct:/\n2:memory:/x\n", "v1/cpu.cfs_quota_us": "-1", "v1/cpu.cfs_period_us": "1"},
            None,
            id="own v1",
        ),
    ],
)
def test_the_cgroup_quota_is_read_in_cores(cgroup: Path, files: dict[str, str], cores: float | None) -> None:
    for name, content in files.items():
        (cgroup / name).write_text(content)
    assert cgroup_cores() == cores


@pytest.mark.parametrize(
    ("affinity", "quota", "cores"),
    [(8, None, 8), (8, "300000 100000", 3), (8, "250000 100000", 3), (8, "10000 100000", 1), (2, "800000 100000", 2)],
    ids=["no quota", "three", "two and a half", "a tenth", "fewer than the quota"],
)
def test_usable_cores_are_what_affinity_and_quota_leave(
    cgroup: Path, monkeypatch: pytest.MonkeyPatch, affinity: int, quota: str | None, cores: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(affinity)), raising=False)
    if quota is not None:
        (cgroup / "v2/cpu.max").write_text(quota)
    assert usable_cores() == cores


@pytest.mark.parametrize(
    ("cores", "workers", "plan"),
    [
        (4, 0, ThreadPlan(engine=4, decode=4, pin=True)),
        (4, 1, ThreadPlan(engine=4, decode=4, pin=True)),
        (4, 2, ThreadPlan(engine=2, decode=2, pin=False)),
        (4, 3, ThreadPlan(engine=1, decode=1, pin=False)),
        (4, 9, ThreadPlan(engine=1, decode=1, pin=False)),
        (64, 2, ThreadPlan(engine=32, decode=8, pin=False)),
    ],
)
def test_cores_are_divided_among_workers_at_least_one_each(cores: int, workers: int, plan: ThreadPlan) -> None:
    assert plan_threads(cores, workers) == plan
