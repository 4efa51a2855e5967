from __future__ import annotations

import os
from pathlib import Path

import pytest

from fedbench.telemetry.cgroup import Cgroup, Cpu, Memory, Usage, steal_seconds

# As Docker shows them inside a container with `--cpus 0.5 --memory 256m --cpuset-cpus 0-2,5`.
V1 = {
    "cpu/cpu.cfs_quota_us": "50000\n",
    "cpu/cpu.cfs_period_us": "100000\n",
    "cpu/cpu.stat": "nr_periods 40\nnr_throttled 10\nthrottled_time 1500000000\nnr_bursts 0\n",
    "cpuacct/cpuacct.usage": "2250000000\n",
    "cpuset/cpuset.effective_cpus": "0-2,5\n",
    "memory/memory.limit_in_bytes": "268435456\n",
    "memory/memory.usage_in_bytes": "1000000\n",
    "memory/memory.max_usage_in_bytes": "3000000\n",
    "memory/memory.stat": "cache 500000\ninactive_file 1\ntotal_inactive_file 400000\n",
    "memory/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n",
}
V2 = {
    "cpu.max": "50000 100000\n",
    "cpu.stat": (
        "usage_usec 2250000\nuser_usec 2000000\nsystem_usec 250000\n"
        "nr_periods 40\nnr_throttled 10\nthrottled_usec 1500000\n"
    ),
    "cpuset.cpus.effective": "0-2,5\n",
    "memory.max": "268435456\n",
    "memory.current": "1000000\n",
    "memory.peak": "3000000\n",
    "memory.stat": "anon 500000\nfile 500000\ninactive_file 400000\n",
    "memory.events": "low 0\nhigh 0\nmax 12\noom 2\noom_kill 2\noom_group_kill 0\n",
}


def tree(root: Path, files: dict[str, str]) -> Cgroup:
    for name, text in files.items():
        path = root / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return Cgroup(root)


@pytest.mark.parametrize(("version", "files"), [(1, V1), (2, V2)])
def test_reads_both_versions_alike(version: int, files: dict[str, str], tmp_path: Path) -> None:
    cgroup = tree(tmp_path, files)

    assert cgroup.version == version
    assert cgroup.cpu_quota() == 0.5
    assert len(cgroup.cpus()) == 4
    assert cgroup.usable_cpus() == 0.5
    assert cgroup.cpu() == Cpu(
        seconds=2.25, throttled_seconds=1.5, throttled_periods=10, periods=40
    )
    assert cgroup.memory() == Memory(used=600_000, peak=3_000_000, limit=2**28, oom_kills=2)


@pytest.mark.parametrize(
    "files",
    [
        V1 | {"cpu/cpu.cfs_quota_us": "-1\n", "memory/memory.limit_in_bytes": f"{2**63 - 4096}\n"},
        V2 | {"cpu.max": "max 100000\n", "memory.max": "max\n"},
    ],
    ids=["v1", "v2"],
)
def test_no_limit_is_none_and_the_cpuset_remains(files: dict[str, str], tmp_path: Path) -> None:
    cgroup = tree(tmp_path, files)

    assert cgroup.cpu_quota() is None
    assert cgroup.usable_cpus() == 4.0
    assert cgroup.memory().limit is None


def test_the_cpuset_limits_a_larger_quota(tmp_path: Path) -> None:
    cgroup = tree(tmp_path, V2 | {"cpu.max": "300000 100000", "cpuset.cpus.effective": "7"})

    assert cgroup.cpu_quota() == 3.0
    assert cgroup.usable_cpus() == 1.0


def test_peak_is_the_current_use_where_the_kernel_has_no_peak(tmp_path: Path) -> None:
    files = {name: text for name, text in V2.items() if name != "memory.peak"}

    assert tree(tmp_path, files).memory().peak == 1_000_000


def test_outside_a_container_nothing_is_limited(tmp_path: Path) -> None:
    # The root of a v2 tree has cpu.stat and hardly anything else.
    cgroup = tree(tmp_path, {"cpu.stat": "usage_usec 5000000\nuser_usec 1\nsystem_usec 1\n"})

    assert cgroup.usable_cpus() == float(len(os.sched_getaffinity(0)))
    assert cgroup.cpu() == Cpu(5.0, 0.0, 0, 0)
    assert cgroup.memory() == Memory(used=0, peak=0, limit=None, oom_kills=0)


def test_reads_this_machine() -> None:
    first, second = Cgroup().cpu().seconds, Cgroup().cpu().seconds

    assert 0 < first <= second


STAT = """cpu  9 0 9 9 0 0 0 700 0 0
cpu0 9 0 9 9 0 0 0 {} 0 0
cpu1 9 0 9 9 0 0 0 {} 0 0
cpu2 9 0 9 9 0 0 0 {} 0 0
intr 1 2 3 4 5 6 7 8 9
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "proc").mkdir()
    (tmp_path / "sys/fs/cgroup").mkdir(parents=True)
    return tmp_path


def v2(root: Path, used: float, throttled: float, steal: tuple[int, int, int]) -> None:
    base = root / "sys/fs/cgroup"
    (base / "cpuset.cpus.effective").write_text("0,2\n")
    (base / "cpu.stat").write_text(
        f"usage_usec {int(used * 1e6)}\nthrottled_usec {int(throttled * 1e6)}\n"
    )
    (root / "proc/stat").write_text(STAT.format(*steal))


def v1(root: Path, used: float, throttled: float, steal: tuple[int, int, int]) -> None:
    base = root / "sys/fs/cgroup"
    for name in ("memory", "cpu", "cpuacct", "cpuset"):
        (base / name).mkdir(exist_ok=True)
    (base / "cpuset/cpuset.effective_cpus").write_text("0,2\n")
    (base / "cpuacct/cpuacct.usage").write_text(f"{int(used * 1e9)}\n")
    (base / "cpu/cpu.stat").write_text(
        f"nr_periods 1\nnr_throttled 1\nthrottled_time {int(throttled * 1e9)}\n"
    )
    (root / "proc/stat").write_text(STAT.format(*steal))


@pytest.mark.parametrize("write", [v1, v2])
def test_a_lap_is_what_was_used_since_the_last(write: object, root: Path) -> None:
    assert callable(write)
    write(root, 10.0, 1.0, (100, 50_000, 300))
    usage = Usage(Cgroup(root))
    write(root, 12.5, 1.5, (150, 90_000, 450))
    first = usage.lap()
    assert (first.cpu, first.throttled) == (2.5, 0.5)
    # Half a second of cpu0 and one and a half of cpu2; cpu1 is not its own.
    assert first.steal == pytest.approx(1.0)
    again = usage.lap()
    assert (again.cpu, again.throttled, again.steal) == (0, 0, 0)


def test_the_real_host_has_a_steal_that_never_sinks() -> None:
    first = steal_seconds(Cgroup())
    assert 0 <= first <= steal_seconds(Cgroup())
