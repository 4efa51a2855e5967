from __future__ import annotations

from pathlib import Path

import pytest

from fedbench.telemetry.cgroup import Cgroup
from fedbench.telemetry.usage import Usage, steal_seconds

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
