from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedbench.errors import HostError
from fedbench.helper.cgroup import UNLIMITED, container_cgroup, set_parent_quota

PID = 42
# As Linux shows them to a process of the host's cgroup namespace.
V1 = "9:name=systemd:{0}\n4:memory:{0}\n2:cpu,cpuacct:{0}\n0::/elsewhere\n"
V2 = "0::{0}\n"

periods = st.integers(1_000, 1_000_000)
quotas = st.one_of(st.just(UNLIMITED), st.integers(1_000, 10**9))


def host(root: Path, version: int, path: str) -> Path:
    """A host whose process PID is in the cgroup `path`; returns the parent's folder."""
    process = root / f"proc/{PID}/cgroup"
    process.parent.mkdir(parents=True)
    process.write_text((V1 if version == 1 else V2).format(path))
    tree = root / "sys/fs/cgroup" / ("cpu" if version == 1 else "")
    folder = tree / path.lstrip("/")
    folder.mkdir(parents=True)
    for level in (folder, *folder.relative_to(tree).parents):
        if version == 1:
            (tree / level / "cpu.cfs_period_us").write_text("100000\n")
            (tree / level / "cpu.cfs_quota_us").write_text("-1\n")
        elif tree / level != tree:  # v2's root has none
            (tree / level / "cpu.max").write_text("max 100000\n")
    return folder.parent


def quota(folder: Path) -> tuple[int, int]:
    """(period, quota) as the kernel would show them."""
    if (folder / "cpu.max").exists():
        limit, period = (folder / "cpu.max").read_text().split()
        return int(period), UNLIMITED if limit == "max" else int(limit)
    files = (folder / "cpu.cfs_period_us", folder / "cpu.cfs_quota_us")
    period, limit = (file.read_text() for file in files)
    return int(period), int(limit)


@given(version=st.sampled_from([1, 2]), period=periods, limit=quotas)
def test_the_parent_alone_gets_the_quota(version: int, period: int, limit: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        parent = host(Path(folder), version, "/outer/fedbench-pc-1/3f2a")

        set_parent_quota(Path(folder), PID, period, limit)

        assert quota(parent) == (period, limit)
        assert quota(parent / "3f2a") == (100_000, UNLIMITED)
        assert quota(parent.parent) == (100_000, UNLIMITED)


def test_on_v1_the_old_quota_is_lifted_before_the_period_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parent = host(tmp_path, 1, "/fedbench-pc-1/3f2a")
    (parent / "cpu.cfs_quota_us").write_text("1500")
    written: list[tuple[str, str]] = []
    monkeypatch.setattr(Path, "write_text", lambda file, text: written.append((file.name, text)))

    set_parent_quota(tmp_path, PID, 50_000, 25_000)

    assert written == [
        ("cpu.cfs_quota_us", "-1"),
        ("cpu.cfs_period_us", "50000"),
        ("cpu.cfs_quota_us", "25000"),
    ]


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("path", ["/3f2a", "/"])
def test_the_host_itself_is_left_alone(version: int, path: str, tmp_path: Path) -> None:
    host(tmp_path, version, path)
    with pytest.raises(HostError, match="no parent but the host's: it is in no container"):
        set_parent_quota(tmp_path, PID, 100_000, 50_000)
    if version == 1:
        assert quota(tmp_path / "sys/fs/cgroup/cpu") == (100_000, UNLIMITED)


def test_a_process_that_ended_is_named(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="process 7 is not there: its container has ended"):
        set_parent_quota(tmp_path, 7, 100_000, 50_000)


def test_a_cgroup_of_another_host_is_not_found(tmp_path: Path) -> None:
    """What a container with a cgroup namespace of its own sees of processes outside of it."""
    folder = host(tmp_path, 1, "/docker/3f2a") / "3f2a"
    assert container_cgroup(tmp_path, PID) == folder
    (tmp_path / f"proc/{PID}/cgroup").write_text(V1.format("/../77aa"))
    with pytest.raises(HostError, match="no such cgroup, though process 42"):
        container_cgroup(tmp_path, PID)


def test_what_the_kernel_refuses_is_said_with_the_file(tmp_path: Path) -> None:
    parent = host(tmp_path, 2, "/fedbench-pc-1/3f2a")
    (parent / "cpu.max").unlink()
    (parent / "cpu.max").mkdir()
    with pytest.raises(HostError, match=r"cpu\.max: the kernel refuses '500 1000': Is a directory"):
        set_parent_quota(tmp_path, PID, 1_000, 500)
