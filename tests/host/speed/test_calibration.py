from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import cycle, pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import psutil
import pytest
from fake_containers import FakeContainers
from harness import PROJECT
from hypothesis import given
from hypothesis import strategies as st

from fedbench.engines.containers.runtime import workbench as benches
from fedbench.engines.containers.runtime.containers import Container, Containers
from fedbench.engines.containers.runtime.workbench import NAME, Workbench, workbench
from fedbench.errors import ConfigError, DockerError
from fedbench.host.speed import calibration as calibrating
from fedbench.host.speed.cache import ModelSpeed
from fedbench.host.speed.calibration import (
    ENOUGH,
    GAIN,
    REFERENCE,
    TURNS,
    Noise,
    calibrate,
    climb,
    disturbance,
    measure,
    ratio,
    table,
)
from fedbench.records.measurement import Measurement

ROOT = Path(__file__).resolve().parents[3]
# Answers as the workload does: 100 samples per CPU second with one thread, 90 with every core busy,
# a tenth less by the wall clock. It notes the requests, and the quota that was in force.
FAKE = """#!{python}
import json, pathlib, sys
here = pathlib.Path({folder!r})
(here / "argv").write_text(json.dumps(sys.argv[1:]))
if (here / "refuse").exists():
    sys.exit("docker: Conflict. The name is in use")
print("ready", flush=True)
for line in sys.stdin:
    model, *options = line.split()
    values = dict(option.removeprefix("--").split("=") for option in options)
    quota = (here / "quota").read_text() if (here / "quota").exists() else "-1"
    with (here / "requests").open("a") as file:
        file.write(line.strip() + " " + quota + "\\n")
    if model == "mobilenet_v1":
        sys.exit("Killed")
    if model == "lenet":
        print('{{"refused": "model lenet: not in torchvision"}}', flush=True)
        continue
    threads, copies = int(values["threads"]), int(values.get("copies", 1))
    names = [model, values["against"]] if "against" in values else [model] * copies
    for copy, name in enumerate(names):
        speed = {{1: 100.0, 2: 150.0, 4: 160.0}}[threads] - (10 + copy) * (copies > 1)
        print(json.dumps(dict(
            model=name, threads=threads, samples_per_second=speed * 0.9,
            samples_per_cpu_second=speed * (1 if quota == "-1" else 0.9),
            step_cpu_seconds=32 / speed, windows=[speed / 3, speed * 0.9, speed],
            cpu_windows=[speed - 5, speed, speed + 5], cpu_seconds=1.0, torch="2.13.0",
        )), flush=True)
"""


@dataclass
class Bench(FakeContainers):
    """Runs the workload's stand-in, which finds in a file the quota that it is under."""

    folder: Path = field(kw_only=True)

    def set_quota(self, container: Container, period: int, quota: int) -> None:
        assert (container.name, period) == (NAME, 100_000)
        super().set_quota(container, period, quota)
        (self.folder / "quota").write_text(str(quota))

    @property
    def requests(self) -> list[str]:
        return (self.folder / "requests").read_text().splitlines()


@pytest.fixture
def bench(own_host: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    program = tmp_path / "docker"
    program.write_text(FAKE.format(python=sys.executable, folder=str(tmp_path)))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(calibrating, "_cpu_seconds", lambda: (0.0, 0.0))  # nobody else is at work
    bench = Bench(folder=tmp_path, images={"i": {}, "fedbench:cpu": {}})
    bench.add("calibrate", name=NAME)
    return bench


def test_a_model_is_measured_alone_with_threads_on_all_cores_and_under_a_quota(
    bench: Bench, tmp_path: Path
) -> None:
    said: list[str] = []
    cache = tmp_path / "state" / "calibration.json"
    speeds = calibrate(bench, "fedbench:cpu", ["mobilenet_v2"], cache, said.append, cores=4)
    assert bench.requests == [
        "mobilenet_v2 --threads=1 --copies=1 --seconds=5 -1",
        "mobilenet_v2 --threads=2 --copies=1 --seconds=5 -1",
        "mobilenet_v2 --threads=4 --copies=1 --seconds=5 -1",
        "mobilenet_v2 --threads=1 --copies=4 --seconds=5 -1",
        "mobilenet_v2 --threads=1 --copies=1 --seconds=5 25000",
    ]
    assert bench.quotas == {"calibrate": [25_000, -1]}
    speed = speeds["mobilenet_v2"]
    assert (speed.by_threads, speed.busy) == ({1: 100, 2: 135, 4: 144}, 87)
    assert (speed.quota_efficiency, speed.step_cpu_seconds) == (0.9, 0.32)
    assert (speed.spread, speed.of_reference) == ((95, 105), 1.0)
    assert said[0].startswith("calibrating mobilenet_v2: ")
    assert said[1].startswith("mobilenet_v2: 100 samples/s with one thread, 87 with all cores busy")


def test_the_container_is_as_confined_as_a_client(bench: Bench) -> None:
    with workbench(bench, "fedbench:cpu"):
        pass
    argv = json.loads((bench.folder / "argv").read_text())
    assert argv[0] == "run"
    assert {"--rm", "--network=none", "--read-only", "--cap-drop=ALL", "--interactive"} < set(argv)
    assert f"--volume={ROOT}/models:/models:ro" in argv
    assert argv[-4:] == ["fedbench:cpu", "python", "-m", "fedbench.client.workload"]


def test_what_is_known_is_not_measured_again(bench: Bench, tmp_path: Path) -> None:
    cache, said = tmp_path / "calibration.json", list[str]()
    one = calibrate(bench, "i", ["mobilenet_v2"], cache, said.append, cores=1)
    said.clear()
    both = ["mobilenet_v3_small", "mobilenet_v2"]
    speeds = calibrate(bench, "i", both, cache, said.append, cores=1)
    assert list(speeds) == both
    assert speeds["mobilenet_v2"] == one["mobilenet_v2"]
    assert all("mobilenet_v3_small" in line for line in said)
    (tmp_path / "requests").unlink()
    assert calibrate(bench, "i", both, cache, said.append, cores=1) == speeds
    assert not (tmp_path / "requests").exists()


def test_who_waited_for_another_to_measure_measures_nothing(
    bench: Bench, own_host: Path, tmp_path: Path, held: Any
) -> None:
    """Two at once would measure each other."""
    cache, hidden = tmp_path / "calibration.json", tmp_path / "hidden.json"
    measured = calibrate(bench, "i", ["mobilenet_v2"], cache, lambda _: None, cores=1)
    requests = bench.requests
    cache.rename(hidden)
    with held(own_host / "host.lock", "named") as other:

        def say(line: str) -> None:
            assert line.startswith("waiting: another fedbench works on this host: ")
            hidden.rename(cache)
            other.kill()

        assert calibrate(bench, "i", ["mobilenet_v2"], cache, say, cores=1) == measured
    assert bench.requests == requests


def test_fresh_measures_what_is_known(bench: Bench, tmp_path: Path) -> None:
    cache = tmp_path / "calibration.json"
    options = (bench, "i", ["mobilenet_v2"], cache, lambda _: None)
    before = calibrate(*options, cores=1)["mobilenet_v2"].measured_at
    after = calibrate(*options, cores=1, fresh=True)["mobilenet_v2"].measured_at
    assert before < after == calibrate(*options, cores=1)["mobilenet_v2"].measured_at


def test_what_was_measured_before_a_failure_is_kept(bench: Bench, tmp_path: Path) -> None:
    cache = tmp_path / "calibration.json"
    models = ["mobilenet_v2", "mobilenet_v1"]
    with pytest.raises(DockerError) as caught:
        calibrate(bench, "i", models, cache, lambda _: None, cores=1)
    assert caught.value.message == f"container {NAME} ended with code 1:\nKilled"
    (tmp_path / "requests").unlink()
    calibrate(bench, "i", ["mobilenet_v2"], cache, lambda _: None, cores=1)
    assert not (tmp_path / "requests").exists()


def test_a_model_that_is_refused_says_why(bench: Bench, tmp_path: Path) -> None:
    cache = tmp_path / "calibration.json"
    with pytest.raises(ConfigError) as caught:
        calibrate(bench, "i", ["lenet"], cache, lambda _: None, cores=1)
    assert caught.value.message == "model lenet: not in torchvision"
    assert caught.value.hint.startswith("change `model` of the experiment")
    assert len(bench.requests) == 1
    assert not cache.exists()


def test_the_users_models_are_measured_anew_when_they_change(
    bench: Bench, tmp_path: Path, own_models: Path
) -> None:
    cache, models = tmp_path / "calibration.json", ["mine:net", "mobilenet_v2"]
    for code, measured in (("a = 1", set(models)), ("a = 1", set()), ("a = 2", {"mine:net"})):
        (own_models / "mine.py").write_text(code)
        said: list[str] = []
        calibrate(bench, "i", models, cache, said.append, cores=1)
        assert {line.split()[1].rstrip(":") for line in said if "calibrating" in line} == measured


def test_a_container_that_does_not_start_says_why(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "refuse").touch()
    with pytest.raises(DockerError, match=r"Conflict\. The name is in use"):
        calibrate(bench, "i", ["mobilenet_v2"], tmp_path / "c", lambda _: None, cores=1)


def test_a_quota_that_is_refused_says_why(bench: Bench, tmp_path: Path) -> None:
    bench.refusals["set_quota"] = "no such thing"
    with pytest.raises(DockerError, match="its CPU quota cannot be changed: no such thing"):
        calibrate(bench, "i", ["mobilenet_v2"], tmp_path / "c", lambda _: None, cores=1)


def fake(speed: float) -> Measurement:
    return Measurement(
        model="m", threads=1, samples_per_second=speed, samples_per_cpu_second=speed,
        step_cpu_seconds=32 / speed, windows=[speed], cpu_windows=[speed], cpu_seconds=1.0,
        torch="2.13.0",
    )  # fmt: skip


@given(st.integers(1, 200), st.floats(1.0, 2.0))
def test_threads_are_doubled_as_long_as_that_gains(cores: int, power: float) -> None:
    found = climb(lambda threads: fake(power ** threads.bit_length()), cores)
    threads = list(found)
    assert threads[0] == 1
    assert max(threads) <= cores
    assert all(b == min(2 * a, cores) for a, b in pairwise(threads))
    gains = [
        found[b].samples_per_second / found[a].samples_per_second for a, b in pairwise(threads)
    ]
    assert all(gain >= GAIN for gain in gains[:-1])
    assert threads[-1] == cores or gains[-1] < GAIN


@pytest.mark.parametrize(
    ("others", "steal", "windows", "note"),
    [
        (0.05, 0.01, [76, 100, 124], None),
        (0.12, 0.0, [100], "others used 12% of the CPUs"),
        (
            0.3,
            0.02,
            [50, 100, 110],
            "others used 30% of the CPUs; the hypervisor took 2% of them; "
            "the speed was up to 50% off its median",
        ),
        (0.0, 0.0, [100, 100, 140], "the speed was up to 40% off its median"),
    ],
)
def test_what_disturbed_a_measurement_is_noted(
    others: float, steal: float, windows: list[float], note: str | None
) -> None:
    assert disturbance(others=others, steal=steal, windows=windows) == note


def test_our_own_cpu_time_is_no_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    times = {"user": 50.0, "nice": 0.0, "system": 1.0, "irq": 0.0, "softirq": 0.0, "steal": 0.0}
    now = [0.0]
    monkeypatch.setattr(calibrating, "monotonic", lambda: now[0])
    monkeypatch.setattr(psutil, "cpu_times", lambda: SimpleNamespace(**times))
    noise = Noise()
    now[0] = 10.0
    times["user"] += 12.0  # of 2 cores x 10 s
    noise.note(fake(100.0).model_copy(update={"cpu_seconds": 12.0}))
    assert noise.words(2, [100.0]) is None
    times["user"] += 4.0
    times["steal"] = 2.0
    assert noise.words(2, [100.0]) == "others used 20% of the CPUs; the hypervisor took 10% of them"


def test_the_table_shows_what_was_measured(bench: Bench) -> None:
    with workbench(bench, "fedbench:cpu") as opened:
        speed = measure(opened, "mobilenet_v2", 2, lambda _: None)
    header, (row,) = table([speed])
    assert len(header) == len(row)
    assert row[:7] == (
        "mobilenet_v2", "100", "95 to 105", "2: 135", "89", "90%", "320.0",
    )  # fmt: skip


@pytest.mark.docker
def test_this_host_is_calibrated(
    docker_containers: Containers, helper_image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"{PROJECT}-calibrate"
    monkeypatch.setattr(benches, "NAME", name)
    cores = min(2, docker_containers.host().cpus)
    with workbench(docker_containers, helper_image) as opened:
        speed = measure(opened, "mobilenet_v3_small", cores, print, seconds=1.0)
    assert set(speed.by_threads) == {1, cores}
    # A step takes a core some tens of milliseconds; far off means that a figure is another's.
    assert 10 < speed.by_threads[1] < 100_000
    assert 0.1 < speed.busy / speed.by_threads[1] < 3
    assert 0.3 < speed.quota_efficiency < 3
    assert speed.step_cpu_seconds * speed.by_threads[1] == pytest.approx(32, rel=0.5)
    assert speed.spread[0] <= speed.by_threads[1] <= speed.spread[1]
    assert ModelSpeed.model_validate_json(speed.model_dump_json()) == speed
    assert docker_containers.named(name) is None


def test_another_model_is_held_against_the_reference_in_turns(bench: Bench, tmp_path: Path) -> None:
    cache = tmp_path / "calibration.json"
    speeds = calibrate(
        bench, "fedbench:cpu", ["mobilenet_v3_small"], cache, lambda _: None, cores=1
    )
    assert speeds["mobilenet_v3_small"].of_reference == 1.0  # the fake trains all alike
    turn = "mobilenet_v3_small --against=mobilenet_v2 --threads=1 --seconds=1.2 -1"
    assert bench.requests[-TURNS[0] :] == [turn] * TURNS[0]
    assert bench.requests[-TURNS[0] - 1] != turn


@dataclass
class Scattered:
    """A workbench on a host that trains a model so many times as fast as the reference."""

    ratios: Iterator[float]
    asked: int = 0

    def compare(self, model: str, other: str, *, seconds: float) -> tuple[Measurement, Measurement]:
        self.asked += 1
        return fake(100.0 * next(self.ratios)), fake(100.0)

    @property
    def bench(self) -> Workbench:
        return cast("Workbench", self)


@given(st.floats(0.1, 10), st.floats(0.0, 0.5))
def test_a_ratio_is_taken_until_it_is_known(middle: float, scatter: float) -> None:
    host = Scattered(cycle((middle * (1 + scatter), middle / (1 + scatter))))
    found, error = ratio(host.bench, "mobilenet_v3_small")
    assert found == pytest.approx(middle, rel=scatter / 4 + 1e-6)
    assert TURNS[0] <= host.asked <= TURNS[1]
    if scatter < 0.01:
        assert host.asked == TURNS[0]
    if scatter > 0.1:
        assert host.asked == TURNS[1]
        assert error > ENOUGH


def test_the_reference_is_itself_without_a_measurement() -> None:
    host = Scattered(iter(()))
    assert ratio(host.bench, REFERENCE) == (1.0, 0.0)
