"""Memory of one client, idle and training, beside the stock flower-supernode with the same app.

Resident is the anonymous memory of the node's process and its descendants, plus the file-backed
pages of the one that has most of these, for they map the same libraries: for one process, its
VmRSS in /proc/<pid>/status. fedbench's node is one process; the stock node runs the ClientApp in
another for as long as a message takes, and fedbench's process around it does not count.

Idle is connected, five seconds after a start, before the first message. Training is the largest of
samples taken every 0.1 s through two rounds of MobileNetV2, one epoch each of 5,000 images in
batches of 32 and an evaluation on 1,000. MB are 10^6 bytes; the stock node is measured once.

The rows `cgroup_*` say what the container's cgroup counts, anonymous and mapped: pages of files are
charged to the first container that reads them, usually another one.
"""

from __future__ import annotations

import io
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import containers
import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from docker.models.containers import Container
from federation import Federation, federation
from PIL import Image
from row import Row, row

TRAIN_IMAGES, TEST_IMAGES, SETTLED_SECONDS = 5000, 1000, 5.0
TURNS = {"fedbench": 3, "stock": 1}  # the stock node's turns take three times as long
_EXPERIMENT = {
    "rounds": 2,
    "local_epochs": 1,
    "data.partition": "replicated",
    "data.train_samples": TRAIN_IMAGES,
    "data.test_samples": TEST_IMAGES,
}
_COMMANDS = {"fedbench": "fedbench.client", "stock": "flower-supernode"}


@dataclass
class Figures:
    """MB, one figure for each turn."""

    idle: list[float] = field(default_factory=list)
    training: list[float] = field(default_factory=list)
    cgroup_idle: list[float] = field(default_factory=list)
    cgroup_training: list[float] = field(default_factory=list)


def rows(command: str) -> Iterator[Row]:
    ours, stock = measure("fedbench"), measure("stock")
    for name, mine, theirs in (
        ("rss_idle", ours.idle, stock.idle),
        ("rss_training", ours.training, stock.training),
        ("cgroup_idle", ours.cgroup_idle, stock.cgroup_idle),
        ("cgroup_training", ours.cgroup_training, stock.cgroup_training),
    ):
        yield row(name, mine, "MB", command, theirs, more_is_better=False)


def measure(node: str) -> Figures:
    """A federation of one laptop, whose client starts anew for each turn."""
    figures = Figures()
    with tempfile.TemporaryDirectory() as folder:
        write_images(Path(folder))
        profile = Path(folder) / "one.yaml"
        profile.write_text(f"machines: [device: laptop]\ngpu_stand_in: true\nnode: {node}\n")
        with federation(str(profile), "--experiment=noop", "--set=rounds=1") as bench:
            for _ in range(TURNS[node]):
                turn(bench, node, folder, figures)
    return figures


def turn(bench: Federation, node: str, folder: str, figures: Figures) -> None:
    """Adds one figure of each kind."""
    container = bench.restart("laptop")
    process = find(container, _COMMANDS[node])
    time.sleep(SETTLED_SECONDS)
    figures.idle.append(resident(process))
    figures.cgroup_idle.append(charged(container))
    samples: list[tuple[float, float]] = []
    settings = [f"--set={key}={value}" for key, value in _EXPERIMENT.items()]
    bench.run(
        "--experiment=cifar10",
        f"--data={folder}",
        *settings,
        look=lambda: samples.append((resident(process), charged(container))),
    )
    training, cgroup = map(max, zip(*samples, strict=True))
    figures.training.append(training)
    figures.cgroup_training.append(cgroup)


def find(container: Container, command: str) -> psutil.Process:
    """The container's process that was started by the command."""
    container.reload()
    init = psutil.Process(container.attrs["State"]["Pid"])
    return next(p for p in init.children(recursive=True) if command in " ".join(p.cmdline()))


def resident(process: psutil.Process) -> float:
    """MB of the process and its descendants, as this module's docstring defines it."""
    anonymous, files = 0, [0]
    for each in (process, *process.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):  # the stock node's processes come and go
            memory = each.memory_info()
            anonymous += memory.rss - memory.shared
            files.append(memory.shared)
    return (anonymous + max(files)) / 1e6


def charged(container: Container) -> float:
    """MB of anonymous and mapped memory that the container's cgroup counts, v1 or v2."""
    stats = containers.client().api.stats(container.id, stream=False, one_shot=True)
    counted = stats["memory_stats"]["stats"]
    keys = ("anon", "file_mapped") if "anon" in counted else ("total_rss", "total_mapped_file")
    return sum(counted[key] for key in keys) / 1e6


def write_images(folder: Path) -> None:
    """Noise in the schema of uoft-cs/cifar10."""
    random = np.random.default_rng(0)
    for split, count in (("train", TRAIN_IMAGES), ("test", TEST_IMAGES)):
        images = [{"bytes": _picture(random), "path": None} for _ in range(count)]
        labels = [index % 10 for index in range(count)]
        pq.write_table(pa.table({"img": images, "label": labels}), folder / f"{split}.parquet")


def _picture(random: np.random.Generator) -> bytes:
    file = io.BytesIO()
    Image.fromarray(random.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(file, "PNG")
    return file.getvalue()
