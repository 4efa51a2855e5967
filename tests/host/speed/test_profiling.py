from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import yaml
from docker.errors import DockerException

from fedbench.config import load_device, parse_name
from fedbench.engines.containers.runtime import daemon
from fedbench.engines.containers.runtime.containers import ContainerHost
from fedbench.errors import ConfigError, DockerError, HostError
from fedbench.host.setup import bootstrap
from fedbench.host.setup.machine import Done, HostMachine
from fedbench.host.speed import profiling
from fedbench.host.speed.profiling import Runner, default_name, find_runner, profile

ROOT = Path(__file__).resolve().parents[3]
BARE = [sys.executable, "-m", "fedbench.client.workload"]


@dataclass
class Workload:
    """Trains 100 samples/s with one thread, 180 with two, no more with four; copies at 60 each."""

    gpu: str | None = None
    calls: list[list[str]] = field(default_factory=list)

    def __call__(self, argv: Any, **_: object) -> Done:
        self.calls.append(list(argv))
        values = dict(part.removeprefix("--").split("=") for part in argv if "--" in part[:2])
        threads, copies = int(values["threads"]), int(values.get("copies", 1))
        speed = {1: 100.25, 2: 180.0, 4: 181.0}[threads] if copies == 1 else 60.0
        line = json.dumps({
            "model": argv[3], "threads": threads, "samples_per_second": speed,
            "samples_per_cpu_second": speed, "step_cpu_seconds": 0.1, "windows": [90.0, 190.4],
            "cpu_windows": [speed], "cpu_seconds": 5.0, "torch": "2.13.0",
            "gpu": self.gpu, "gpu_memory": 6 * 2**30 if self.gpu else None,
        })  # fmt: skip
        return Done(0, f"UserWarning: slow\n{line}\n" + f"{line}\n" * (copies - 1))


@pytest.fixture
def computer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two cores of two threads each, 4 GiB, and no board that has a name."""
    cpus = {True: 4, False: 2}
    monkeypatch.setattr(psutil, "cpu_count", lambda logical=True: cpus[logical])
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(total=4 * 2**30))
    monkeypatch.setattr(profiling, "cpu_model", lambda: "Some CPU: fast")
    monkeypatch.setattr(profiling, "BOARD", tmp_path / "model")
    return tmp_path


def runner(workload: Callable[..., Done]) -> Runner:
    return Runner(BARE, "Python 3.11.7", "do that", HostMachine(execute=workload))


def written(folder: Path, values: dict[str, Any]) -> Path:
    file = folder / "mine.yaml"
    file.write_text(yaml.safe_dump(values, sort_keys=False))
    return file


def test_the_profile_is_one_that_fedbench_reads(computer: Path) -> None:
    workload, said = Workload(), list[str]()
    values = profile(runner(workload), "my-box", ["mobilenet_v2"], said.append)
    device = load_device(str(written(computer, values)))
    assert (device.name, device.cores, device.threads) == ("my-box", 2, 4)
    assert (device.memory, device.gpu) == (4 * 2**30, None)
    assert device.description.startswith("Some CPU: fast, 2 cores, 4.0 GiB, measured on ")
    assert device.speed == {"mobilenet_v2": 181.0}
    assert device.capacity == {"mobilenet_v2": 240.0}
    source = device.sources["speed.mobilenet_v2"]
    assert source.startswith("fedbench profile-this-device, ")
    assert source.endswith(": 90 to 190 on 4 threads, torch 2.13.0, Python 3.11.7")
    assert device.sources.keys() == {
        "cores", "threads", "memory", "speed.mobilenet_v2", "capacity.mobilenet_v2",
    }  # fmt: skip
    assert workload.calls == [
        [*BARE, "mobilenet_v2", "--threads=1"],
        [*BARE, "mobilenet_v2", "--threads=2"],
        [*BARE, "mobilenet_v2", "--threads=4"],
        [*BARE, "mobilenet_v2", "--threads=1", "--copies=4"],
    ]
    assert said[1] == "mobilenet_v2: 181.0 samples/s"


def test_a_gpu_is_in_the_profile(computer: Path) -> None:
    values = profile(runner(Workload("RTX 3060")), "box", ["mobilenet_v1"], lambda _: None)
    device = load_device(str(written(computer, values)))
    assert device.gpu is not None
    assert (device.gpu.model, device.gpu.memory) == ("RTX 3060", 6 * 2**30)
    assert device.capacity == {}
    assert " on RTX 3060, " in device.sources["speed.mobilenet_v1"]


def test_a_board_that_names_itself_is_named(computer: Path) -> None:
    (computer / "model").write_text("Raspberry Pi 4 Model B Rev 1.4\0")
    values = profile(runner(Workload()), "pi", ["mobilenet_v2"], lambda _: None)
    assert values["description"].startswith("Raspberry Pi 4 Model B Rev 1.4, 2 cores")


def test_a_python_without_torch_is_refused_with_what_to_do() -> None:
    machine = HostMachine(execute=lambda *_, **__: Done(1, "ModuleNotFoundError: no torch\n"))
    bare = find_runner(ROOT, print, in_image=False, machine=machine)
    with pytest.raises(HostError, match="the workload fails in Python 3") as caught:
        bare.run("mobilenet_v2", "--threads=1")
    assert caught.value.message.endswith("ModuleNotFoundError: no torch")
    assert caught.value.hint.startswith("pip install torch torchvision safetensors, or install")


def nobody() -> Any:
    raise DockerException("nobody answers")


def test_without_docker_it_runs_bare_unless_the_image_is_asked_for() -> None:
    machine = HostMachine(connect=nobody, endpoint="tcp://nowhere:1")
    assert find_runner(ROOT, print, machine=machine).command == BARE
    with pytest.raises(DockerError, match="no Docker daemon answers at tcp://nowhere:1"):
        find_runner(ROOT, print, in_image=True, machine=machine)


@pytest.mark.parametrize("gpus", [0, 1])
def test_with_docker_it_runs_in_the_image(gpus: int, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []

    def image(*_: object, cuda: bool, **__: object) -> str:
        asked.append(cuda)
        return "fedbench:cuda" if cuda else "fedbench:cpu"

    monkeypatch.setattr(bootstrap, "ensure_client_image", image)
    host = ContainerHost(2, 2**33, gpus, "cgroupfs")
    monkeypatch.setattr(daemon.DockerContainers, "host", lambda _: host)
    connect: Any = SimpleNamespace
    found = find_runner(ROOT, print, machine=HostMachine(connect=connect))
    tag = "fedbench:cuda" if gpus else "fedbench:cpu"
    assert asked == [bool(gpus)]
    assert found.where == f"image {tag}"
    assert found.command[:2] == ["docker", "run"]
    assert found.command[-4:] == [tag, "python", "-m", "fedbench.client.workload"]
    assert ("--gpus=all" in found.command) == bool(gpus)


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("vm", "vm"),
        ("My_Box.local", "my-box-local"),
        ("---", "this-device"),
        ("x" * 60, "x" * 41),
    ],
)
def test_the_computers_name_becomes_a_devices(
    host: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.node", lambda: host)
    assert parse_name(default_name()) == default_name() == name


def test_the_real_workload_answers_a_bare_runner() -> None:
    bare = find_runner(ROOT, print, in_image=False)
    options = ("--threads=1", "--seconds=0.1", "--samples=64")
    (measured,) = bare.run("mobilenet_v3_small", *options)
    assert (measured.model, measured.threads) == ("mobilenet_v3_small", 1)
    assert measured.samples_per_second > 0


def test_the_real_workload_refuses_a_model() -> None:
    bare = find_runner(ROOT, print, in_image=False)
    with pytest.raises(ConfigError, match="model resnt18: neither one of mobilenet_v1") as caught:
        bare.run("resnt18", "--threads=1")
    assert caught.value.message.endswith("; did you mean resnet18 or resnet152 or resnet101?")
    assert caught.value.hint.startswith("change `model` of the experiment")
