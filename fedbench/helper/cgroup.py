"""The CPU quota of the cgroup that several containers share: cgroup v1 and v2.

The kernel's scheduler/sched-bwc.rst and cgroup-v2.rst describe the files. Docker sets the quota of
a container, but not that of its `--cgroup-parent`.
"""

from __future__ import annotations

from pathlib import Path

from fedbench.errors import HostError

UNLIMITED = -1


def set_parent_quota(root: Path, pid: int, period: int, quota: int) -> None:
    """Set the CPU quota of the cgroup above the container of process `pid`.

    It is `quota` us per `period` us; -1 is no quota. `root` is the file system that holds `proc`
    and `sys/fs/cgroup` of the host.

    Raises:
        HostError: there is no such process, it is in no container, or the kernel refuses.
    """
    folder = container_cgroup(root, pid).parent
    if (folder / "cpu.max").exists():
        _write(folder / "cpu.max", f"{'max' if quota == UNLIMITED else quota} {period}")
        return
    # The old quota in the new period might be more than an outer cgroup's, or less than 1 ms.
    _write(folder / "cpu.cfs_quota_us", str(UNLIMITED))
    _write(folder / "cpu.cfs_period_us", str(period))
    _write(folder / "cpu.cfs_quota_us", str(quota))


def container_cgroup(root: Path, pid: int) -> Path:
    """Return the folder of the cgroup that limits the CPU of process `pid`.

    Raises:
        HostError: there is no such process, its cgroup is not in the tree under `root`, or the
            cgroup has no parent but the host's.
    """
    try:
        lines = (root / "proc" / str(pid) / "cgroup").read_text().splitlines()
    except OSError:
        raise HostError(f"process {pid} is not there: its container has ended") from None
    # `2:cpu,cpuacct:/docker/ID` on v1, which may have a line without controllers, too: all of v2.
    fields = (line.split(":", 2) for line in lines)
    paths = {name: path for _, names, path in fields for name in names.split(",")}
    tree = root / "sys/fs/cgroup" / ("cpu" if "cpu" in paths else "")
    path = paths.get("cpu", paths.get("", "/"))
    folder = tree / path.lstrip("/")
    if not folder.is_dir():
        raise HostError(f"{folder}: no such cgroup, though process {pid} is said to be in it")
    if path.count("/") < 2:
        raise HostError(
            f"process {pid}: its cgroup {path} has no parent but the host's: it is in no container"
        )
    return folder


def _write(file: Path, text: str) -> None:
    try:
        file.write_text(text)
    except OSError as error:
        raise HostError(f"{file}: the kernel refuses {text!r}: {error.strerror}") from None
