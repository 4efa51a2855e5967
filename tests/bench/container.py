"""Epoch seconds in a client's container against a bare process with the same cores and quota.

The container is the one that the plan makes of a device: `docker compose run` starts that service
with another command. The bare process runs in the host's namespaces, with no seccomp filter, no
overlay of its own and no memory limit, but from the same files (chroot into a container of the
image), with the same environment, as the same user. Two devices: `container_vs_bare` has one core
to itself (cpuset; sched_setaffinity for the bare process), `container_vs_bare_quota` half a CPU
(a quota on the container; for the bare process, one on a cgroup that is made for it).

Both train MobileNetV2 in batches of 32, one epoch at a time and in turns; for each of the turns,
both start anew, for a process keeps the luck that it had with its pages. `ratio` is the median of
the turns' ratios. Takes root, to make a cgroup and to chroot.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import mean, median

import containers
import yaml
from row import Row, row

from fedbench.config import Device, Machine, Profile
from fedbench.engines.containers.runtime.compose import Compose
from fedbench.engines.containers.runtime.stack import CONTAINER_UID
from fedbench.host.plan.plan import Plan, plan
from fedbench.host.plan.project import Paths, compose_project, environment
from fedbench.host.setup.images import PROMETHEUS

PROJECT = "fedbench-bench"
CPU_PERIOD = 100_000  # microseconds
TURNS, EPOCHS = 4, 2
USER = f"{CONTAINER_UID}:{CONTAINER_UID}"
# Trains one epoch for each line of input. It says that it is ready: Docker looks less often then.
_TRAIN = """
import pathlib, sys, torch
from fedbench.learning import data, models, processor, train
pathlib.Path("/tmp/ready").touch()
processor.set_threads(1)
pixels = torch.randint(256, (640, 32, 32, 3), dtype=torch.uint8)
images = data.ImageSet(pixels, torch.arange(640) % 10, ("",) * 10)
model = models.build("mobilenet_v2")
for _ in sys.stdin:
    options = dict(epochs=1, batch_size=32, learning_rate=0.001, seed=0)
    print(train.train(model, images, **options)[0].seconds, flush=True)
"""
_COMMAND = ["python", "-c", _TRAIN]


def rows(command: str) -> Iterator[Row]:
    if os.getuid():
        containers.say("container: left out, it takes root")
        return
    for name, cores in (("container_vs_bare", 1.0), ("container_vs_bare_quota", 0.5)):
        with _service(cores) as (compose, root, variables):
            turns = [_turn(cores, compose, root, variables) for _ in range(TURNS)]
        ours, bare = zip(*turns, strict=True)
        ratio = median(b / c for c, b in turns)
        result = row(name, ours, "s / epoch", command, bare, more_is_better=False)
        yield replace(result, ratio=ratio)


def _turn(
    cores: float, compose: Compose, root: Path, variables: dict[str, str]
) -> tuple[float, float]:
    """Mean epoch seconds in a container and of a bare process."""
    with ExitStack() as stack:
        ours = stack.enter_context(_container(compose))
        bare = stack.enter_context(_bare(cores, root, variables))
        for process in (ours, bare):
            _epoch(process)  # warms up
        forth = [(_epoch(ours), _epoch(bare)) for _ in range(EPOCHS)]
        back = [(_epoch(bare), _epoch(ours))[::-1] for _ in range(EPOCHS)]
    mine, theirs = zip(*forth, *back, strict=True)
    return mean(mine), mean(theirs)


def _epoch(process: subprocess.Popen[str]) -> float:
    assert process.stdin
    assert process.stdout
    process.stdin.write("\n")
    process.stdin.flush()
    return float(process.stdout.readline())


@contextmanager
def _service(cores: float) -> Iterator[tuple[Compose, Path, dict[str, str]]]:
    """A device of so many cores as a compose project, the image's files, and its environment."""
    client, image = containers.client(), containers.image()
    device = Device(name="device", description="", cores=cores, memory=2**31)
    profile = Profile(name="bench", machines=(Machine(device="device"),))
    planned = _exactly(plan(profile, {"device": device}, containers.talk().host()), cores)
    files = client.containers.run(image, ["sleep", "infinity"], detach=True, init=True)
    with tempfile.TemporaryDirectory() as folder:
        compose = _compose(planned, Path(folder), image)
        try:
            files.reload()
            root = Path("/proc") / str(files.attrs["State"]["Pid"]) / "root"
            variables = dict(pair.split("=", 1) for pair in files.attrs["Config"]["Env"])
            yield compose, root, variables | {"OMP_NUM_THREADS": str(planned.clients[0].threads)}
        finally:
            files.remove(force=True)
            compose.purge()


def _exactly(planned: Plan, cores: float) -> Plan:
    """The plan with a core of one's own, or a quota without a margin."""
    own = cores.is_integer()
    quota = 2 * CPU_PERIOD if own else int(cores * CPU_PERIOD)
    (client,) = planned.clients
    client = replace(client, threads=1, quota=quota, period=CPU_PERIOD, cpuset="0" if own else None)
    return replace(planned, clients=(client,))


def _compose(planned: Plan, folder: Path, image: str) -> Compose:
    paths = Paths(containers.ROOT, folder / "data", folder / "runs", folder / "tls", USER)
    file = folder / "compose.yaml"
    file.write_text(yaml.safe_dump(compose_project(planned, paths, PROJECT)))
    images = {"fedbench": image, "prometheus": PROMETHEUS, "grafana": None}
    return Compose(PROJECT, file, environment(planned, paths, images))


@contextmanager
def _container(compose: Compose) -> Iterator[subprocess.Popen[str]]:
    argv = compose.command("run", "--rm", "--no-deps", "--no-TTY", "device", *_COMMAND)
    with _started(argv, compose.environment()) as process:
        yield process


@contextmanager
def _bare(cores: float, root: Path, variables: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    # Through env: LD_PRELOAD names a library of the image's.
    settings = [f"{key}={value}" for key, value in variables.items()]
    argv = ["chroot", f"--userspec={USER}", str(root), "env", "-i", *settings, *_COMMAND]
    with _quota(cores) as members, _started(argv) as process:
        if members:
            members.write_text(str(process.pid))
        else:
            os.sched_setaffinity(process.pid, {0})
        yield process


@contextmanager
def _started(
    argv: list[str], variables: dict[str, str] | None = None
) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        argv,
        env=variables,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        yield process  # ends with its input


@contextmanager
def _quota(cpus: float) -> Iterator[Path | None]:
    """A new cgroup's list of members; none where the device has whole cores."""
    if cpus.is_integer():
        yield None
        return
    base = Path("/sys/fs/cgroup")
    v2 = (base / "cgroup.controllers").exists()
    group = (base if v2 else base / "cpu") / PROJECT
    group.mkdir()
    period, quota = 100_000, int(cpus * 100_000)
    limit, text = ("cpu.max", f"{quota} {period}") if v2 else ("cpu.cfs_quota_us", str(quota))
    try:
        (group / limit).write_text(text)
        yield group / "cgroup.procs"
    finally:
        group.rmdir()
