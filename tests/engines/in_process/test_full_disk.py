"""A run whose disk fills up says so, loses nothing that was whole, and goes on with room again."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from fedbench.config import load_experiment, load_profile
from fedbench.engines.in_process.engine import InProcessEngine
from fedbench.errors import RunError
from fedbench.host.setup.places import Places

pytestmark = pytest.mark.processes

DISK_MEGABYTES = 64
ROOM_BYTES = 15_000_000
"""Two models of 6 MB have room, beside what else a run writes; the third has not."""
SMALL = [
    "model=mobilenet_v3_small", "rounds=4", "local_epochs=1",
    "data.train_samples=60", "data.test_samples=20",
]  # fmt: skip


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small file system of its own, where the test may mount one."""
    folder = tmp_path / "checkout" / "runs"
    folder.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MEGABYTES}m", "fedbench-test", str(folder)]
    if os.geteuid() or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("only root may mount a small file system")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def leave(folder: Path, room: int) -> Path:
    """Fill the disk of a folder but for so many bytes."""
    filler = folder / "filler"
    filler.write_bytes(bytes(shutil.disk_usage(folder).free - room))
    return filler


def test_a_disk_that_fills_up_ends_the_run_and_room_lets_it_go_on(disk: Path) -> None:
    places = Places(disk.parent)
    engine = InProcessEngine(places, load_profile("legacy-pair"), lambda _: None, workers=0)
    run = engine.create(load_experiment("digits", SMALL), None)
    filler = leave(disk, ROOM_BYTES)
    engine.start(run)
    with pytest.raises(RunError) as caught:
        engine.follow(run, lambda: None)

    assert f"the disk at {disk} is full (" in caught.value.message
    assert f"of {DISK_MEGABYTES * 2**20 / 1e6:.0f} MB are free)" in caught.value.message
    assert f"{run.path} cannot be written to; with room again, RESUME goes on" in (
        caught.value.message
    )
    assert run.state() == "failed"
    recorded = run.rounds()
    assert [record.round for record in recorded] == [1, 2]
    assert not list(run.path.glob("*.tmp"))
    for line in (run.path / "events.jsonl").read_text().splitlines():
        json.loads(line)

    filler.unlink()
    assert engine.resume(run.id) == run
    engine.start(run)
    summary = engine.follow(run, lambda: None)
    assert summary.status == "finished"
    assert [record.round for record in summary.rounds] == [1, 2, 3, 4]
    assert summary.rounds[:2] == recorded
    assert (run.path / "model.safetensors").stat().st_size > 10**6
    assert not (run.path / "spare").exists()
