from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from fake_containers import HOST, FakeContainers

from fedbench import __version__
from fedbench.config import Experiment, load_devices, load_experiment, load_profile
from fedbench.engines import engine as engines
from fedbench.engines.containers import emulation
from fedbench.engines.containers.engine import ContainersEngine
from fedbench.engines.containers.runtime.containers import CommandAnswer
from fedbench.engines.containers.runtime.stack import Stack
from fedbench.errors import ConfigError, DataError, DockerError, RunError, RunInterrupted
from fedbench.host.data import prepare
from fedbench.host.plan.plan import HostFacts, plan
from fedbench.host.plan.targets import ASSUMED, Assumed
from fedbench.host.setup.places import PROJECT, Places
from fedbench.host.watch.vigil import watching
from fedbench.records import Summary, executing, write_summary
from fedbench.records.events import append_event
from fedbench.records.runs import Run

GOLDEN = Path(__file__).parents[2] / "golden" / "runs" / "20260102-030405-digits"
VERSIONS = {"python": "3.11.2", "flwr": "1.41.0"}


@pytest.fixture(autouse=True)
def calibrated(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that trains as fast as it is assumed to."""
    monkeypatch.setattr(emulation.calibration, "calibrate", lambda *_, **__: ASSUMED)


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "POLL_SECONDS", 0.01)


@pytest.fixture(autouse=True)
def ctrl_c() -> Iterator[None]:
    """Ctrl-C works, in a test that a script started in the background, too."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def stack(tmp_path: Path) -> Stack:
    profile = load_profile("heterogeneous")
    planned = plan(profile, load_devices(profile), HostFacts(cpus=64, memory=128 * 2**30))
    images = {"fedbench": "fedbench:cpu", "prometheus": "p", "grafana": None}
    return Stack.write(Places(tmp_path / "checkout"), planned, load_devices(profile), images)


@pytest.fixture
def up(fake: FakeContainers) -> FakeContainers:
    """The federation's server, which runs nothing and says its versions."""
    fake.answers["importlib.metadata"] = CommandAnswer(0, json.dumps(VERSIONS) + "\n")
    fake.add("server")
    fake.run("server", "python -m fedbench.server")
    return fake


def runner(
    stack: Stack, containers: FakeContainers, said: list[str] | None = None
) -> ContainersEngine:
    return ContainersEngine(stack, containers, (said if said is not None else []).append)


@pytest.fixture
def run(stack: Stack) -> Run:
    """A run of two rounds on the stack's own profile that is not over: no ending, no summary."""
    path = Path(shutil.copytree(GOLDEN, stack.places.runs / GOLDEN.name))
    events = path / "events.jsonl"
    events.write_text("".join(events.read_text().splitlines(keepends=True)[:-1]))
    return Run(path)


Spawn = Callable[[str], "subprocess.Popen[bytes]"]


@pytest.fixture
def spawn(run: Run) -> Iterator[Spawn]:
    """Starts a shell script in the run's folder, in place of the server's process."""
    processes: list[subprocess.Popen[bytes]] = []

    def start(script: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(["sh", "-c", script], cwd=run.path, start_new_session=True)
        processes.append(process)
        return process

    yield start
    for process in processes:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def tell(event: str, **facts: Any) -> str:
    """A line of shell that writes an event as the server does."""
    line = json.dumps({"time": "2026-01-02T03:05:05.000+00:00", "event": event} | facts)
    return f"echo '{line}' >>events.jsonl"


def once(action: Callable[[], None]) -> Callable[[], None]:
    """Does something the first time that it is called."""
    pending = [action]

    def look() -> None:
        if pending:
            pending.pop()()

    return look


def press_ctrl_c() -> None:
    signal.raise_signal(signal.SIGINT)


# -- follow


def follow(
    engine: ContainersEngine,
    run: Run,
    process: subprocess.Popen[bytes],
    look: Callable[[], None],
) -> Summary:
    """Follow a run whose process is this one."""
    with patch.object(engine, "launch", lambda _: process):
        engine.start(run)
    return engine.follow(run, look)


def test_a_run_is_followed_to_its_end(
    stack: Stack, fake: FakeContainers, run: Run, spawn: Spawn
) -> None:
    looks: list[str] = []
    process = spawn(tell("finished"))
    engine = runner(stack, FakeContainers())
    summary = follow(engine, run, process, lambda: looks.append(run.state()))
    assert (summary.status, len(summary.rounds), summary.total_seconds) == ("finished", 2, 60.0)
    assert json.loads((run.path / "summary.json").read_text()) == summary.model_dump()
    assert looks[-1] == "running"  # a last look, at what came since the one before


@pytest.mark.parametrize(
    ("script", "why"),
    [
        (tell("error", reason="ValueError: 3"), "ValueError: 3"),
        ("exit 1", "the server died"),
        ("rm events.jsonl", "the server never started it"),
    ],
)
def test_a_run_that_failed_says_why(
    script: str, why: str, stack: Stack, run: Run, spawn: Spawn
) -> None:
    with pytest.raises(RunError) as caught:
        follow(runner(stack, FakeContainers()), run, spawn(script), lambda: None)
    assert caught.value.message == f"run {run.id} failed: {why}"
    assert caught.value.hint == "`make logs` shows why"
    assert run.state() == "failed"


STOPPABLE = "while [ ! -e stop ]; do sleep 0.02; done; "


def test_ctrl_c_stops_the_run_keeps_its_records_and_says_how_to_go_on(
    stack: Stack, run: Run, spawn: Spawn
) -> None:
    said: list[str] = []
    process = spawn(STOPPABLE + tell("stopped"))
    with pytest.raises(RunInterrupted) as caught:
        follow(runner(stack, FakeContainers(), said), run, process, once(press_ctrl_c))
    assert said == ["stopping the run (Ctrl-C again leaves at once)"]
    assert (run.path / "stop").exists()
    assert process.returncode == 0
    assert caught.value.message == (
        f"run {run.id} stopped after 2 rounds; what was recorded is in {run.path}"
    )
    assert caught.value.hint == (
        f"`make run RESUME={run.id}` goes on from there, `make run` starts anew, "
        "`make down` takes the federation down"
    )
    assert caught.value.exit_code == 130
    assert run.state() == "interrupted"
    assert len(run.summary().rounds) == 2


def test_ctrl_c_amid_the_last_round_does_not_spoil_a_finished_run(
    stack: Stack, run: Run, spawn: Spawn
) -> None:
    process = spawn(STOPPABLE + tell("finished"))
    summary = follow(runner(stack, FakeContainers()), run, process, once(press_ctrl_c))
    assert summary.status == "finished"


def test_a_second_ctrl_c_leaves_at_once(stack: Stack, run: Run, spawn: Spawn) -> None:
    process = spawn(STOPPABLE + f"kill -INT {os.getpid()}; exec sleep 60")
    with pytest.raises(KeyboardInterrupt):
        follow(runner(stack, FakeContainers()), run, process, once(press_ctrl_c))
    assert process.poll() is None
    assert (run.path / "stop").exists()
    assert run.state() == "running"


# -- idle?


def test_a_second_run_waits_for_the_first(stack: Stack, up: FakeContainers) -> None:
    launch = f"python -m fedbench.server.launch /runs/{GOLDEN.name}"
    up.run("server", "python -m fedbench.server", launch)
    starts: list[Callable[[], Run]] = [
        lambda: runner(stack, up).create(load_experiment("digits"), None),
        lambda: runner(stack, up).resume(None),
    ]
    for start in starts:
        with pytest.raises(RunError) as caught:
            start()
        assert caught.value.message == f"run {GOLDEN.name} is in progress"
        assert caught.value.hint == f"wait for it, or stop it: touch runs/{GOLDEN.name}/stop"


@pytest.mark.parametrize("there", [False, True])
def test_without_its_server_nothing_runs(there: bool, stack: Stack, fake: FakeContainers) -> None:
    if there:
        fake.add("server", status="exited")
    with pytest.raises(DockerError) as caught:
        runner(stack, fake).create(load_experiment("digits"), None)
    assert caught.value.message == "the server is not running"
    assert list(stack.places.runs.iterdir()) == []


def test_a_run_that_was_started_is_in_progress(
    stack: Stack, up: FakeContainers, run: Run, spawn: Spawn
) -> None:
    """Not only when its process is there, in the server's container, some time later."""
    launch = f"python -m fedbench.server.launch /runs/{run.id}"
    timer = threading.Timer(0.3, lambda: up.run("server", "python -m fedbench.server", launch))
    engine = runner(stack, up)
    process = spawn("exec sleep 60")
    timer.start()
    with patch.object(engine, "launch", lambda _: process):
        engine.start(run)
    with pytest.raises(RunError, match=f"run {run.id} is in progress"):
        runner(stack, up).create(load_experiment("digits"), None)
    timer.join()


# -- create


def test_a_new_run_holds_everything_that_it_takes_to_repeat_it(
    stack: Stack, up: FakeContainers, docker_command: Any
) -> None:
    docker_command.answer("name: fedbench\n")
    experiment = load_experiment("digits")
    run = runner(stack, up).create(experiment, None)
    assert sorted(path.name for path in run.path.iterdir()) == [
        "compose.yaml",
        "experiment.json",
        "profile.json",
        "run.json",
        "versions.json",
    ]
    assert (run.experiment(), run.profile()) == (experiment, stack.profile)
    assert (run.path / "compose.yaml").read_text() == "name: fedbench\n"
    facts = json.loads((run.path / "run.json").read_text())
    assert (facts["clients"], facts["classes"]) == (3, 10)
    assert facts["class_names"] == [str(number) for number in range(10)]
    assert facts["emulation"]["dilation"] == stack.dilation
    assert facts["emulation"]["targets"] == {
        "workstation": pytest.approx(50_000 / 211),
        "laptop": pytest.approx(50_000 / 33),
        "legacy-pc": pytest.approx(50_000 / 225),
    }
    assert facts["emulation"]["computers"] == {
        name: name for name in ("workstation", "laptop", "legacy-pc")
    }
    assert facts["watts"] == {
        name: [device.watts.idle, device.watts.load]
        for name, device in stack.devices.items()
        if device.watts
    }
    assert facts["watts"].keys() == {"workstation", "laptop", "legacy-pc"}
    for client in ("workstation", "laptop", "legacy-pc"):
        assert (stack.places.data / client / facts["data"] / "train.safetensors").is_file()
    versions = json.loads((run.path / "versions.json").read_text())
    assert VERSIONS.items() <= versions.items()
    assert (versions["fedbench"], versions["image"]) == (__version__, "sha256:abc")
    assert (versions["docker"], versions["kernel"], versions["os"]) == (
        HOST.version, HOST.kernel, HOST.system,
    )  # fmt: skip
    assert (versions["cores"], versions["memory_bytes"]) == (HOST.cpus, HOST.memory)
    assert versions["dilation"] == stack.dilation
    assert versions["cpu"]


def targets(run: Run) -> dict[str, float]:
    emulation = run.facts().emulation
    assert emulation is not None
    return emulation.targets


def test_a_later_calibration_does_not_move_the_targets_of_the_plans_model(
    up: FakeContainers, tmp_path: Path, docker_command: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The quotas are made for them. Of another model nobody planned: what is known now counts."""
    docker_command.answer("name: fedbench\n")
    profile = load_profile("heterogeneous")
    devices, images = load_devices(profile), {"fedbench": "f", "prometheus": "p", "grafana": None}
    planned_for, other = "mobilenet_v3_large", "mobilenet_v1"  # predicted from V2, both
    host = HostFacts(cpus=64, memory=128 * 2**30)
    planned = plan(profile, devices, host, ASSUMED, planned_for)
    stack = Stack.write(Places(tmp_path / "checkout"), planned, devices, images)
    models = [load_experiment("digits", [f"model={name}"]) for name in (planned_for, other)]

    before = [targets(runner(stack, up).create(model, None)) for model in models]
    faster = dict(ASSUMED) | {name: Assumed(2_000.0) for name in (planned_for, other)}
    monkeypatch.setattr(emulation.calibration, "calibrate", lambda *_, **__: faster)
    loaded = Stack.load(stack.places)
    assert loaded is not None
    after = [targets(runner(loaded, up).create(model, None)) for model in models]

    assert after[0] == before[0]
    assert {name: before[0][name] for name in stack.speeds} == {
        name: speed.single for name, speed in planned.speeds.items()
    }
    for client, speed in before[1].items():
        assert after[1][client] == pytest.approx(speed * 2_000 / 830)


@pytest.mark.parametrize(("stride", "notes"), [(2, 0), (1, 1)])
def test_a_stride_that_no_device_has_a_speed_of_is_said(
    stack: Stack, up: FakeContainers, docker_command: Any, stride: int, notes: int
) -> None:
    docker_command.answer("name: fedbench\n")
    said: list[str] = []
    experiment = load_experiment("digits", [f"stem_stride={stride}"])
    runner(stack, up, said).create(experiment, None)
    assert sum("emulated seconds are too few" in line for line in said) == notes


def test_initial_weights_are_copied_into_the_run(
    stack: Stack, up: FakeContainers, docker_command: Any, tmp_path: Path
) -> None:
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(b"weights")
    experiment = load_experiment("digits", [f"initial_weights={weights}"])
    run = runner(stack, up).create(experiment, None)
    assert (run.path / "initial.safetensors").read_bytes() == b"weights"


def test_the_users_own_models_are_kept_with_the_run(
    stack: Stack, up: FakeContainers, docker_command: Any, own_models: Path
) -> None:
    (own_models / "mine.py").write_text("def net(classes): ...")
    (own_models / "__pycache__").mkdir()
    run = runner(stack, up).create(load_experiment("digits", ["model=mine:net"]), None)
    (kept,) = (run.path / "models").iterdir()
    assert kept.read_text() == "def net(classes): ..."
    plain = runner(stack, up).create(load_experiment("digits"), None)
    assert not (plain.path / "models").exists()


def test_initial_weights_that_are_not_there_are_refused(
    stack: Stack, up: FakeContainers, tmp_path: Path
) -> None:
    experiment = Experiment(name="mine", initial_weights=f"{tmp_path}/none.safetensors")
    with pytest.raises(ConfigError) as caught:
        runner(stack, up).create(experiment, None)
    assert caught.value.message == (
        f"experiment mine: initial_weights: no such file: {tmp_path}/none.safetensors"
    )
    assert list(stack.places.runs.iterdir()) == []


# -- resume, start


@pytest.fixture
def prepared(stack: Stack, run: Run) -> Path:
    """The data of the run, of which one client's is gone: its folder."""
    names = [client.name for client in stack.clients]
    prepared = prepare.prepare(run.experiment(), names, stack.places.data)
    run.facts().model_copy(update={"data": prepared.key}).write(run.path)
    gone = stack.places.data / names[1] / prepared.key
    shutil.rmtree(gone)
    return gone


def test_a_run_goes_on_where_it_stopped(
    stack: Stack, up: FakeContainers, run: Run, prepared: Path
) -> None:
    run.request_stop()
    resumed = runner(stack, up).resume(run.id)
    assert resumed == run
    assert not (run.path / "stop").exists()
    assert (prepared / "train.safetensors").is_file()


@pytest.mark.parametrize("watched", [False, True])
def test_a_run_that_lost_its_server_when_nobody_watched_goes_on(
    stack: Stack, up: FakeContainers, run: Run, prepared: Path, watched: bool
) -> None:
    """Its server does so by itself once it is back: the run keeps the server's mark."""
    executing.begin(run.path, PROJECT)
    up.change("server", status="exited")
    if watched:
        with watching(run), pytest.raises(RunError, match="is in progress"):
            runner(stack, up).resume(run.id)
    else:
        runner(stack, up).resume(run.id)
    assert up.get("server").is_running
    assert run.is_executing()


def test_a_run_does_not_go_on_with_other_data(
    stack: Stack, up: FakeContainers, run: Run, prepared: Path
) -> None:
    key = "digits-iid-3-s0-00000000"
    run.facts().model_copy(update={"data": key}).write(run.path)
    with pytest.raises(DataError) as caught:
        runner(stack, up).resume(run.id)
    assert caught.value.message == (
        f"the data of this run is gone, and digits is other data now: {prepared.name}, not {key}"
    )


def test_a_run_that_its_server_goes_on_with_is_in_progress(
    stack: Stack, up: FakeContainers, run: Run
) -> None:
    """What started it died with the server before."""
    executing.begin(run.path, PROJECT)
    for status in ("running", "restarting"):
        up.change("server", status=status)
        with pytest.raises(RunError, match=f"run {run.id} is in progress"):
            runner(stack, up).create(load_experiment("digits"), None)
    up.change("server", status="exited")
    with pytest.raises(DockerError, match="the server is not running"):
        runner(stack, up).create(load_experiment("digits"), None)
    assert run.is_executing()


def test_a_run_is_followed_beyond_the_death_of_its_server(
    stack: Stack, run: Run, spawn: Spawn
) -> None:
    executing.begin(run.path, PROJECT)
    process = spawn("exit 137")
    looks: list[int | None] = []

    def look() -> None:
        looks.append(process.poll())
        if len(looks) == 20:
            append_event(run.path, "started", after_round=2)
            append_event(run.path, "finished")
            write_summary(run.path)
            executing.end(run.path)

    summary = follow(runner(stack, FakeContainers()), run, process, look)
    assert summary.status == "finished"
    assert looks[-1] == 137


def test_a_server_that_executes_another_run_is_named(
    stack: Stack, up: FakeContainers, run: Run, spawn: Spawn
) -> None:
    (run.path / "launch.log").write_text("before\nrun r7 is in progress\n")
    process = spawn("exit 2")
    process.wait()
    engine = runner(stack, up)
    with patch.object(engine, "launch", lambda _: process), pytest.raises(RunError) as caught:
        engine.start(run)
    assert caught.value.message == "the server refuses: run r7 is in progress"


def test_a_run_of_another_federation_does_not_go_on_here(
    stack: Stack, up: FakeContainers, run: Run
) -> None:
    other = load_profile("legacy-pair")
    (run.path / "profile.json").write_text(other.model_dump_json())
    with pytest.raises(RunError) as caught:
        runner(stack, up).resume(run.id)
    assert caught.value.message == f"run {run.id} belongs to another federation (legacy-pair)"
    assert caught.value.hint == "make up PROFILE=legacy-pair brings it up"


def test_a_run_is_launched_in_the_servers_container(
    stack: Stack, run: Run, up: FakeContainers, docker_command: Any
) -> None:
    docker_command.answer("what it printed\n", "what it complained of\n", code=3)
    up.add("laptop", cpu_quota=-1)  # its host died while it was starting
    process = runner(stack, up).launch(run)
    quotas = {planned.name: planned.quota for planned in stack.clients}
    assert up.quotas == {"laptop": [quotas["laptop"]]}
    assert os.getsid(process.pid) == process.pid  # Ctrl-C in the terminal does not reach it
    assert process.wait() == 3
    assert docker_command.calls == [
        f"fedbench:cpu: compose --project-name {PROJECT} --file {stack.compose.file} "
        f"exec --no-TTY server python -m fedbench.server.launch /runs/{run.id}"
    ]
    log = (run.path / "launch.log").read_text()
    assert log == "what it printed\nwhat it complained of\n"
