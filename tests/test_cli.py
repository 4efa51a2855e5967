"""The commands as a user types them: what they print, and the exit code."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import psutil
import pytest
import yaml

from fedbench import cli
from fedbench.config import (
    CONFIGS,
    Device,
    Experiment,
    available,
    load_device,
    load_profile,
)
from fedbench.errors import RunError
from fedbench.explain import nearest
from fedbench.host import bootstrap, calibrate, planning, profiling, starting
from fedbench.host import runner as runners
from fedbench.host.data import prepare as prepare_data
from fedbench.host.plan import HostFacts, client_names, plan
from fedbench.host.runs import Run, RunStore
from fedbench.host.speeds import ModelSpeed
from fedbench.host.stack import Places, Stack
from fedbench.host.sweep import load_study
from fedbench.host.sweeping import Sweeping
from fedbench.naming import MODELS
from fedbench.records import Summary

TESTS = Path(__file__).parent
INVALID = TESTS / "invalid"
HOST = HostFacts(cpus=2, memory=8 * 2**30)
RUN = "20260102-030405-digits"


def known(kind: str) -> str:
    """The hint of an error about a name that is not known."""
    return f"hint: known {kind}s: {', '.join(available(kind))}; others go into {CONFIGS}/{kind}s"


def unknown(kind: str, name: str) -> str:
    """What is said of a name that is not known: those like it, then all."""
    return f"unknown {kind} {name!r}{nearest(name, available(kind))}\n{known(kind)}"


Fedbench = Callable[..., tuple[int, str, str]]


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Places:
    """An empty checkout, on a host where no Docker daemon answers."""
    monkeypatch.setattr(cli, "places", Places(tmp_path / "checkout"))
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/nobody.sock")
    monkeypatch.chdir(tmp_path)
    return cli.places


@pytest.fixture
def fedbench(
    places: Places, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Fedbench:
    """Runs a command as the entry point does: exit code, standard output, standard error."""

    def run(*argv: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["fedbench", *argv])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        captured = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        assert "Traceback" not in captured.out + captured.err
        return ended.value.code, captured.out, captured.err

    return run


@pytest.fixture
def stack(places: Places) -> Stack:
    """A federation that was brought up once; its containers are gone."""
    devices = {"legacy-pc": load_device("legacy-pc")}
    one = plan(load_profile("legacy-pair"), devices, HOST)
    images = {"fedbench": "f", "prometheus": "p", "grafana": None}
    return Stack.write(places, one, devices, images)


# -- one fixture file per kind of bad configuration; {} is its path

SIZE = "expected a size such as 8GiB or 512MiB"
NAME = "expected lower-case letters, digits and '-', at most 41 characters"

TIME = "expected a time such as 10ms or 0.5s"
RATE = "expected a rate such as 10Mbit or 500kbit"
SPEED = "expected a speed such as `225 s/epoch`, `39.1 samples/s` or `0.95x`"
MODEL = (
    "expected mobilenet_v1, mobilenet_v2, mobilenet_v3_small, mobilenet_v3_large, "
    "a classifier of torchvision or module:callable"
)
SEEDS = "expected how many seeds, such as 3, or a list of them, such as [0, 7]"

BAD_DEVICES = {
    "Bad_Name": f"{{}}: name: {NAME}, found 'Bad_Name'",
    "a-list": "{}: expected keys and values, found [{{'cores': 4}}, {{'memory': '4GiB'}}]",
    "bad-delay": f"{{}}: network.delay: {TIME}, found '1min'",
    "bad-jitter": f"{{}}: network.jitter: {TIME}, found '-1ms'",
    "bad-loss": "{}: network.loss: expected a share such as 0.5% or 0.005, found '101%'",
    "bad-network-name": f"{{}}: network: {NAME}, found 'Home Wifi'",
    "bad-rate": f"{{}}: network.down: {RATE}, found '10MB'",
    "bad-speed-unit": f"{{}}: speed.mobilenet_v2: {SPEED}, found '225 s/round'",
    "capacity-below-speed": "{}: capacity.mobilenet_v2: expected at least speed.mobilenet_v2, "
    "222.2 samples/s, found 100 samples/s",
    "capacity-without-speed": "{}: capacity.mobilenet_v1: expected only with a speed.mobilenet_v1",
    "empty": "{}: expected keys and values, found nothing",
    "gpu-as-text": "{}: gpu: expected keys and values, found 'RTX 3060'",
    "infinite": "{}: cores: Input should be a finite number, found inf",
    "key-missing": "{}: memory: this key is missing",
    "load-below-idle": "{}: watts.load: expected at least watts.idle, 20 W, found 12.5 W",
    "negative-watts": "{}: watts.idle: Input should be greater than or equal to 0, found -1",
    "network-as-number": "{}: network: expected keys and values, found 3",
    "no-rate": f"{{}}: network.up: {RATE}, found 0",
    "no-speed": f"{{}}: speed.mobilenet_v2: {SPEED}, found '0 samples/s'",
    "beyond-all-sizes": f"{{}}: memory: {SIZE}, found {10**400}",
    "not-a-size": f"{{}}: memory: {SIZE}, found 'plenty'",
    "not-utf8": "{}: cannot be read as YAML: 'utf-8' codec can't decode byte 0xe9 in position 16: "
    "invalid continuation byte",
    "not-yaml": "{}, line 3: not YAML: expected ',' or ']', but got ':'",
    "out-of-range": "{}: cores: Input should be greater than 0, found 0",
    "several-problems": "{0}: cores: Input should be a valid number, found 'four'\n"
    f"{{0}}: memory: {SIZE}, found 'plenty'\n"
    "{0}: colour: no such key; did you mean cores or sources?",
    "source-of-unknown-figure": "{}: sources.speed.mobilenet_v1: no such figure; "
    "did you mean speed.mobilenet_v2?",
    "speed-as-text": "{}: speed: expected keys and values, found '225 s/epoch'",
    "speed-of-unknown-model": f"{{}}: speed.mobilenet_v4: {MODEL}, found 'mobilenet_v4'; "
    "did you mean mobilenet_v2 or mobilenet_v1?",
    "too-little-memory": "{}: memory: expected at least 256MiB, found '64MiB'",
    "unknown-gpu-key": "{}: gpu.modle: no such key; did you mean model?",
    "unknown-key": "{}: core: no such key; did you mean cores or sources or memory?",
    "unknown-network-key": "{}: network.dwon: no such key; did you mean down?",
    "wrong-type": "{}: cores: Input should be a valid number, found 'four'",
}
BAD_PROFILES = {
    "a-list": "{}: expected keys and values, found [{{'device': 'laptop'}}]",
    "bad-name": f"{{}}: machines.0.name: {NAME}, found 'My Laptop'",
    "bad-rate": f"{{}}: network.up: {RATE}, found 'fast'",
    "device-of-no-known-name": "profile device-of-no-known-name: machines.0.device: "
    + unknown("device", "zzz"),
    "dilation-below-one": "{}: dilation: Input should be greater than or equal to 1, found 0.5",
    "empty": "{}: expected keys and values, found nothing",
    "machine-as-text": "{}: machines.0: expected keys and values, found 'laptop'",
    "machine-bad-delay": f"{{}}: machines.0.network.delay: {TIME}, found '10 seconds'",
    "machine-negative-gpu": "{}: machines.0.gpu: Input should be greater than or equal to 0, "
    "found -1",
    "machine-unknown-network-key": "{}: machines.0.network.los: no such key; did you mean loss?",
    "machines-as-text": "{}: machines: expected a list, found 'laptop'",
    "named-server": "profile named-server: machines: server is the name of one of the "
    "federation's own services\nhint: give each machine a name of its own",
    "no-clients": "{}: machines: expected at least one machine, such as `- device: laptop`, "
    "found []",
    "no-machines-key": "{}: machines: this key is missing",
    "not-yaml": "{}, line 3: not YAML: expected <block end>, but found '<block sequence start>'",
    "out-of-range": "{}: ports.server: Input should be less than or equal to 65535, found 99999",
    "two-of-one-name": "profile two-of-one-name: machines: two clients are named left\n"
    "hint: give each machine a name of its own",
    "two-of-one-numbered-name": "profile two-of-one-numbered-name: machines: "
    "two clients are named laptop-2\nhint: give each machine a name of its own",
    "unknown-device": "profile unknown-device: machines.1.device: " + unknown("device", "lptop"),
    "unknown-key": "{}: stritc: no such key; did you mean strict or description?",
    "unknown-machine-key": "{}: machines.0.cuont: no such key; did you mean count or clients?",
    "unknown-node": "{}: node: Input should be 'fedbench' or 'stock', found 'stok'",
    "unknown-port": "{}: ports.sever: no such key; did you mean server?",
    "wrong-type": "{}: machines.0.count: Input should be a valid integer, found '3'",
}
SMALL_HOSTS = {
    "strict-cores": (
        HostFacts(cpus=4, memory=960 * 2**30),
        "every device is slowed by one factor, for this host has 4 cores: "
        "emulated seconds are wall seconds / 1.62",
    ),
    "strict-memory": (
        HostFacts(cpus=12, memory=8 * 2**30),
        "its machines have 12 GiB of memory, the host 8 GiB",
    ),
}
BAD_EXPERIMENTS = {
    "a-list": "{}: expected keys and values, found [{{'rounds': 5}}]",
    "data-as-text": "{}: data: expected keys and values, found 'digits'",
    "empty": "{}: expected keys and values, found nothing",
    "infinite": "{}: learning_rate: Input should be a finite number, found inf",
    "key-of-no-known-name": "{}: data.zzz: no such key; "
    "known are name, partition, image_column, label_column, train_samples, test_samples",
    "model-as-number": "{}: model: Input should be a valid string, found 18",
    "model-of-no-possible-name": f"{{}}: model: {MODEL}, found 'ResNet-18'",
    "not-yaml": "{}, line 3: not YAML: expected ',' or '}}', but got '<stream end>'",
    "out-of-range": "{0}: rounds: Input should be greater than or equal to 1, found 0\n"
    "{0}: fraction: Input should be less than or equal to 1, found 1.5\n"
    "{0}: batch_size: Input should be greater than or equal to 2, found 1\n"
    "{0}: learning_rate: Input should be greater than 0, found 0\n"
    "{0}: seed: Input should be greater than or equal to 0, found -1",
    "own-model-without-callable": f"{{}}: model: {MODEL}, found 'example:'",
    "partition-out-of-range": "{0}: data.partition.alpha: "
    "Input should be greater than or equal to 0.001, found 0\n"
    "{0}: data.partition.min_samples: Input should be greater than or equal to 1, found 0",
    "sizes-and-law": "{}: data.partition.law: expected either this or sizes",
    "unknown-data": "{}: data.name: Input should be 'digits', 'cifar10' or 'folder', "
    "found 'imagenet'",
    "unknown-data-key": "{}: data.partitions: no such key; did you mean partition?",
    "unknown-partition": "{}: data.partition: "
    "expected one of replicated, iid, dirichlet, shards, size; did you mean iid?, found 'non-iid'",
    "unknown-partition-key": "{}: data.partition.per_clients: "
    "no such key; did you mean per_client?",
    "unknown-key": "{}: round: no such key; did you mean rounds or fraction or precision?",
    "unknown-model": f"{{}}: model: {MODEL}, found 'mobilenet_v9'; "
    "did you mean mobilenet_v2 or mobilenet_v1?",
    "unknown-option": "{0}: optimizer: Input should be 'adam' or 'sgd', found 'adamw'\n"
    "{0}: schedule: Input should be 'constant' or 'cosine', found 'step'\n"
    "{0}: augmentation: Input should be 'none' or 'flip-crop', found True\n"
    "{0}: label_smoothing: Input should be less than 1, found 1\n"
    "{0}: stem_stride: Input should be 1 or 2, found 3\n"
    "{0}: batch_norm: Input should be 'mean' or 'pooled', found 'sum'\n"
    "{0}: server_momentum: Input should be less than 1, found 1.0",
    "wrong-type": "{}: rounds: Input should be a valid integer, found 'many'",
}
BAD_SWEEPS = {
    "a-list": "{}: expected keys and values, found [{{'profile': 'heterogeneous'}}]",
    "bad-name": f"{{}}: name: {NAME}, found 'My Sweep'",
    "empty": "{}: expected keys and values, found nothing",
    "grid-as-list": "{}: grid: expected keys and values, found ['rounds']",
    "key-below-a-value": "{}: rounds.all: 'rounds' has no keys of its own",
    "key-missing": "{}: profile: this key is missing",
    "key-set-and-varied": "{}: grid.rounds: rounds is given twice",
    "key-twice": "{}: grid.rounds: rounds is given twice",
    "name-in-grid": "{}: grid.name: expected a key that changes what is learned",
    "negative-seed": "{}: seed: Input should be greater than or equal to 0, found -1",
    "no-seeds": f"{{}}: seeds: {SEEDS}, found 0",
    "no-values": "{}: grid.rounds: expected a list of different values, found []",
    "not-yaml": "{}, line 4: not YAML: expected ',' or '}}', but got '<stream end>'",
    "seed-in-grid": "{}: grid.seed: seeds are given by `seeds`, beside `grid`",
    "seeds-as-text": f"{{}}: seeds: {SEEDS}, found 'many'",
    "unknown-experiment": "{}: experiment: " + unknown("experiment", "digts"),
    "unknown-experiment-key": "{0}: data.partitions: no such key; did you mean partition?\n"
    "{0}: local_epoch: no such key; did you mean local_epochs or local_seconds or label_smoothing?",
    "unknown-key": "{}: grids: no such key; did you mean grid or seeds?",
    "unknown-profile": "{}: profile: " + unknown("profile", "hetero"),
    "value-not-a-list": "{}: grid.rounds: expected a list, found 5",
    "value-twice": "{}: grid.rounds: expected a list of different values, found [5, 5]",
    "values-of-unequal-length": "{}: grid.rounds, local_epochs: expected lists of 2 values, "
    "found 10",
    "values-out-of-range": "{0}: rounds: Input should be greater than or equal to 1, found 0\n"
    "{0}: model: expected mobilenet_v1, mobilenet_v2, mobilenet_v3_small, mobilenet_v3_large, a "
    "classifier of torchvision or module:callable, found 'mobilenet_v9'; did you mean mobilenet_v2 "
    "or mobilenet_v1?",
}


def refusal(message: str, file: Path) -> tuple[int, str, str]:
    text = f"error: {message.format(file)}\n"
    edit = message.startswith("{") and "hint: " not in message
    return 2, "", text + (f"hint: edit {file}\n" if edit else "")


@pytest.mark.parametrize("name", BAD_DEVICES)
def test_a_bad_device_is_refused(name: str, fedbench: Fedbench) -> None:
    file = INVALID / "devices" / f"{name}.yaml"
    answer = fedbench("join", "--server", "localhost:9092", "--device", str(file))
    assert answer == refusal(BAD_DEVICES[name], file)


@pytest.mark.parametrize("name", BAD_PROFILES)
@pytest.mark.parametrize("command", ["plan", "up", "data"])
def test_a_bad_profile_is_refused(
    name: str, command: str, fedbench: Fedbench, places: Places
) -> None:
    file = INVALID / "profiles" / f"{name}.yaml"
    answer = fedbench(command, str(file))
    assert answer == refusal(BAD_PROFILES[name], file)
    assert not places.root.exists()


@pytest.mark.parametrize("name", BAD_EXPERIMENTS)
def test_a_bad_experiment_is_refused(name: str, fedbench: Fedbench, places: Places) -> None:
    file = INVALID / "experiments" / f"{name}.yaml"
    answer = fedbench("data", "--experiment", str(file))
    assert answer == refusal(BAD_EXPERIMENTS[name], file)
    assert not places.root.exists()


@pytest.mark.parametrize("name", BAD_SWEEPS)
def test_a_bad_sweep_is_refused(name: str, fedbench: Fedbench, places: Places) -> None:
    file = INVALID / "sweeps" / f"{name}.yaml"
    answer = fedbench("sweep", "partitions", str(file))
    assert answer == refusal(BAD_SWEEPS[name], file)
    assert not places.root.exists()


@pytest.mark.parametrize("name", SMALL_HOSTS)
def test_strict_refuses_a_host_that_is_too_small(
    name: str, fedbench: Fedbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts, what = SMALL_HOSTS[name]
    monkeypatch.setattr(planning, "_facts", lambda: facts)
    assert fedbench("plan", str(INVALID / "profiles" / f"{name}.yaml")) == (
        3,
        "",
        f"error: profile {name} is strict, and this host cannot be all of it: {what}\n"
        "hint: use a larger host, a smaller profile, or --set strict=false\n",
    )


@pytest.mark.parametrize(
    ("kind", "tested"),
    [
        ("devices", BAD_DEVICES),
        ("profiles", BAD_PROFILES | SMALL_HOSTS),
        ("experiments", BAD_EXPERIMENTS),
        ("sweeps", BAD_SWEEPS),
    ],
)
def test_every_fixture_is_tested(kind: str, tested: dict[str, Any]) -> None:
    assert {path.stem for path in (INVALID / kind).iterdir()} == tested.keys()


# -- names and options


@pytest.mark.parametrize(
    ("argv", "err"),
    [
        (["plan", "hetero"], unknown("profile", "hetero")),
        (
            ["up", "../profiles/heterogeneous"],
            unknown("profile", "../profiles/heterogeneous"),
        ),
        (["data", "-e", "digts"], unknown("experiment", "digts")),
        (["sweep", "partitons"], unknown("sweep", "partitons")),
        (
            ["sweep", "partitions", "--set", "local_epochs=3"],
            "--set local_epochs=3: local_epochs differs between the runs of partitions\n"
            f"hint: leave it out, or edit {CONFIGS}/sweeps/partitions.yaml",
        ),
        (
            ["sweep", "partitions", "--set", "rounds=many"],
            "--set rounds=many: rounds: Input should be a valid integer, found 'many'",
        ),
        (
            ["join", "--server", "localhost:9092", "--device", "lptop"],
            unknown("device", "lptop"),
        ),
        (["plan", "nowhere.yaml"], "nowhere.yaml: no such profile file"),
        (
            ["plan", "--set", "rounds"],
            "--set rounds: expected key=value\nhint: for example --set rounds=5",
        ),
        (
            ["plan", "--set", "stritc=true"],
            "--set stritc=true: unknown key 'stritc'; "
            "did you mean strict or stem_stride or description?",
        ),
        (["plan", "--set", "=3"], "--set =3: unknown key ''"),
        (["plan", "--set", "strict=[1"], "--set strict=[1: the value is not YAML"),
        (
            ["plan", "--set", "strict.really=1"],
            "--set strict.really=1: strict: Input should be a valid boolean, found {'really': 1}",
        ),
        (
            ["plan", "--set", "machines.device=laptop"],
            "--set machines.device=laptop: 'machines' has no keys of its own",
        ),
        (
            ["plan", "--set", "strict=1"],
            "--set strict=1: strict: Input should be a valid boolean, found 1",
        ),
        (
            ["up", "--set", "rounds=many"],
            "--set rounds=many: rounds: Input should be a valid integer, found 'many'",
        ),
        (
            ["up", "--set", "data.nmae=digits"],
            "--set data.nmae=digits: data.nmae: no such key; did you mean name?",
        ),
        (
            ["up", "--set", "ports.promethus=9091"],
            "--set ports.promethus=9091: ports.promethus: no such key; did you mean prometheus?",
        ),
        (
            ["join", "--server", "localhost:9092", "--device", "laptop", "--name", "My Laptop"],
            f"NAME=My Laptop: {NAME}",
        ),
    ],
)
def test_a_wrong_name_or_option_is_explained(
    argv: list[str], err: str, fedbench: Fedbench, places: Places
) -> None:
    assert fedbench(*argv) == (2, "", f"error: {err}\n")
    assert not places.root.exists()


def test_a_run_that_goes_on_keeps_its_experiment(fedbench: Fedbench, stack: Stack) -> None:
    code, out, err = fedbench("run", "--resume", "some-run", "--set", "rounds=9")
    assert (code, out) == (2, "")
    assert "a run that goes on keeps its experiment and its data" in err


def test_a_run_cannot_change_the_federation_that_is_up(fedbench: Fedbench, stack: Stack) -> None:
    code, out, err = fedbench("run", "--set", "strict=true")
    assert (code, out) == (2, "")
    assert err.endswith("Invalid value: strict=true belongs to the profile: use `fedbench up`\n")


def test_an_unknown_command_is_a_usage_error(fedbench: Fedbench) -> None:
    code, out, err = fedbench("pln")
    assert (code, out) == (2, "")
    assert "No such command 'pln'" in err


def test_help_shows_every_command(fedbench: Fedbench) -> None:
    code, out, err = fedbench("--help")
    assert (code, err) == (0, "")
    for command in (
        "up", "run", "sweep", "status", "logs", "down", "join", "plan", "data", "devices", "report",
        "calibrate", "profile-this-device", "compare",
    ):  # fmt: skip
        assert f" {command} " in out


# -- sweep


@pytest.fixture
def swept(places: Places) -> list[Run]:
    """The sweep `partitions`, with all runs but the last finished, and that one failed."""
    study = load_study("partitions")
    store = RunStore(places.runs)
    prepare = partial(prepare_data, clients=client_names(study.profile), root=places.data)
    runs: list[Run] = []

    def create(experiment: Experiment, source: Path | None) -> Run:
        runs.append(store.create(experiment, study.profile, {}))
        return runs[-1]

    def execute(run: Run) -> Summary:
        for name in ("rounds.jsonl", "events.jsonl"):
            shutil.copy(TESTS / "golden" / "runs" / RUN / name, run.path)
        if len(runs) == len(study.points):
            event = {"time": "2026-01-02T03:05:00.000+00:00", "event": "error", "reason": "[it]"}
            with (run.path / "events.jsonl").open("a") as file:
                file.write(json.dumps(event) + "\n")
            raise RunError(f"run {run.id} failed: [it]")
        return run.summary()

    runner = cast("Any", SimpleNamespace(create=create))
    Sweeping(study, store, prepare, lambda _: None).run(runner, None, execute)
    return runs


def test_what_is_finished_is_skipped_and_the_rest_needs_a_daemon(
    fedbench: Fedbench, swept: list[Run], tmp_path: Path
) -> None:
    code, out, err = fedbench("sweep", "partitions", "--output", f"{tmp_path}/table.csv")
    assert (code, out) == (3, "")
    first, second = err.splitlines()[:2]
    assert first == "sweep partitions: 8 runs, 7 of them finished; about 0 min 37 s left"
    assert second.startswith("error: no Docker daemon answers")
    assert (tmp_path / "table.csv").read_text().startswith("sweep,data.partition,local_epochs,n,")


def test_a_sweep_that_is_finished_needs_no_daemon(
    fedbench: Fedbench, places: Places, swept: list[Run]
) -> None:
    last = swept[-1].path / "events.jsonl"
    last.write_text("".join(last.read_text().splitlines(keepends=True)[:-1]))
    folder = places.runs / "sweeps" / "partitions"
    code, out, err = fedbench("sweep", "partitions")
    assert (code, err) == (0, "sweep partitions: 8 runs, 8 of them finished\n")
    assert "| replicated     | 2            | 2/2 | 0.5000 ± 0.0000" in out
    assert out.endswith(f"recorded in {folder}\n")
    code, out, _ = fedbench("sweep", "partitions", "--json")
    rows = json.loads(out)
    assert (code, len(rows)) == (0, 4)
    assert rows[0]["sweep"] == "partitions"
    assert rows[0]["settings"] == {"data.partition": "iid", "local_epochs": 1}
    assert rows[0]["accuracy"]["n"] == 2


class GoldenRunner:
    """Makes real run folders; each run is the golden one, but for the second, which fails."""

    def __init__(self, stack: Stack, client: object, say: Callable[[str], None]) -> None:
        self._stack = stack
        self._runs = 0

    def create(self, experiment: Experiment, source: Path | None) -> Run:
        return RunStore(self._stack.places.runs).create(experiment, self._stack.profile, {})

    def start(self, run: Run) -> subprocess.Popen[bytes]:
        return subprocess.Popen(["true"])

    def follow(
        self, run: Run, process: subprocess.Popen[bytes], look: Callable[[], None]
    ) -> Summary:
        process.wait()
        self._runs += 1
        if self._runs == 2:
            raise RunError(f"run {run.id} failed: the server died")
        for name in ("rounds.jsonl", "events.jsonl"):
            shutil.copy(TESTS / "golden" / "runs" / RUN / name, run.path)
        look()
        return run.summary()


def test_a_sweep_goes_on_after_a_failure_and_says_so_at_its_end(
    fedbench: Fedbench, stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[Stack] = []
    monkeypatch.setattr(cli, "_bring_up", lambda *_: stack)
    monkeypatch.setattr(bootstrap, "ensure_docker", lambda say: None)
    monkeypatch.setattr(runners, "Runner", GoldenRunner)
    monkeypatch.setattr(starting, "wait_ready", lambda stack, client, say: waited.append(stack))
    code, out, err = fedbench("sweep", "partitions")
    assert code == 5
    assert "| iid            | 2            | 1/2 |" in out
    lines = err.splitlines()
    failed = RunStore(stack.places.runs).all()[1].id
    why = f"run {failed} failed: the server died"
    assert f"failed: {why}" in lines
    assert "run 8/8 (data.partition=replicated, local_epochs=2, seed=1), about " in err
    assert "round 2/2: accuracy 0.5000, loss 1.5000, 9.0 s (overhead 0.75 s)" in err
    assert lines[-3:-1] == [
        "error: 1 runs failed",
        f"data.partition=iid, local_epochs=2, seed=0: {why}",
    ]
    assert waited == [stack], "until what died is there again"


def test_two_sweeps_of_one_name_are_refused(fedbench: Fedbench, places: Places) -> None:
    code, out, err = fedbench("sweep", "partitions", f"{CONFIGS}/sweeps/partitions.yaml")
    assert (code, out) == (2, "")
    assert err.endswith("two sweeps have one name, and with it one folder\n")
    assert not places.root.exists()


# -- plan


def tree(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in [folder, *folder.rglob("*")]}


def test_plan_needs_no_daemon_and_touches_nothing(
    fedbench: Fedbench, places: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (places.root / "data").mkdir(parents=True)
    before = tree(tmp_path)
    code, out, _ = fedbench("plan", "heterogeneous", "--set", "machines=[{device: laptop}]")
    assert (code, tree(tmp_path)) == (0, before)
    project = yaml.safe_load(out)
    assert list(project["services"]) == ["laptop"]
    assert project["include"][0] == f"{places.root}/compose/server.yaml"


def test_plan_prints_the_same_project_as_json(
    fedbench: Fedbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning, "_facts", lambda: HOST)
    as_yaml, as_json = fedbench("plan", "legacy-pair"), fedbench("plan", "legacy-pair", "--json")
    assert json.loads(as_json[1]) == yaml.safe_load(as_yaml[1])
    notes = "note: this host's own speed is not looked at here: `up` calibrates, and plans anew\n"
    assert (as_yaml[2], as_json[2]) == (notes, notes)


# -- devices


def test_devices_are_listed_with_their_speed_and_watts(fedbench: Fedbench) -> None:
    code, out, err = fedbench("devices")
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in out.splitlines()]
    listed = {row[0]: row[1:] for row in rows if row and row[0]}
    assert (code, err, sorted(listed)) == (0, "", available("device"))
    assert listed["legacy-pc"] == ["4", "4 GiB", "-", "222 v2", "45-115", "-"]
    assert listed["raspberry-pi-4"][3:] == ["~26 v2", "1.6-7.2", "939 Mbit/s"]
    assert listed["phone"][-1] == "lte"
    assert listed["laptop"][2:4] == ["RTX 3060 Mobile", "1515 v2"]


def test_a_device_without_speed_and_watts_is_listed_too(
    fedbench: Fedbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = Device(name="bare", description="d", cores=2, memory=2**30)
    monkeypatch.setattr(cli, "load_device", lambda name: bare)
    monkeypatch.setattr(cli, "available", lambda kind: ["bare"])
    _, out, _ = fedbench("devices")
    row = next(line for line in out.splitlines() if "bare" in line)
    assert [cell.strip() for cell in row.split("│")[4:-1]] == ["-"] * 4


def test_of_one_device_every_figure_has_its_source_or_is_estimated(fedbench: Fedbench) -> None:
    code, out, err = fedbench("devices", "legacy-pc")
    title, *lines = out.splitlines()
    device = load_device("legacy-pc")
    assert (code, err, title) == (0, "", f"legacy-pc: {device.description}")
    found = {line.split()[0]: line for line in lines}
    assert list(found) == list(device.figures())
    assert found["speed.mobilenet_v2"].split(maxsplit=3)[1:] == [
        "222.2", "samples/s", "Negi & Chinara, Table II",
    ]  # fmt: skip
    assert found["memory"].split()[1:] == ["4", "GiB", "estimated"]


def test_devices_are_json_for_scripts(fedbench: Fedbench) -> None:
    code, out, _ = fedbench("devices", "--json")
    assert (code, [device["name"] for device in json.loads(out)]) == (0, available("device"))
    code, out, _ = fedbench("devices", "legacy-pc", "--json")
    [device] = json.loads(out)
    assert device["estimated"] == ["memory", "watts.idle", "watts.load"]
    del device["estimated"]
    assert Device.model_validate(device) == load_device("legacy-pc")


def test_an_unknown_device_is_not_shown(fedbench: Fedbench) -> None:
    assert fedbench("devices", "legacy-cp") == (2, "", f"error: {unknown('device', 'legacy-cp')}\n")


# -- nothing is up, no runs


@pytest.mark.parametrize(
    "argv", [["status"], ["logs"], ["down"], ["run"], ["run", "--resume", "x"]]
)
def test_commands_for_a_federation_say_that_none_is_up(argv: list[str], fedbench: Fedbench) -> None:
    assert fedbench(*argv) == (
        1,
        "",
        "error: no federation is up\nhint: bring one up: make up PROFILE=heterogeneous\n",
    )


def test_a_report_without_runs_says_so(fedbench: Fedbench, places: Places) -> None:
    assert fedbench("report") == (
        5,
        "",
        f"error: no runs in {places.runs}\nhint: start one with `make up` or `make run`\n",
    )
    assert fedbench("report", "some-run") == (
        5,
        "",
        f"error: no run 'some-run' in {places.runs}\nhint: there are no runs yet\n",
    )


@pytest.fixture
def a_run(places: Places) -> Path:
    shutil.copytree(TESTS / "golden" / "runs", places.runs)
    return places.runs / RUN


def test_a_report_of_a_run_that_does_not_exist_names_those_that_do(
    fedbench: Fedbench, a_run: Path
) -> None:
    assert fedbench("report", "20260102-030406-digits") == (
        5,
        "",
        f"error: no run '20260102-030406-digits' in {a_run.parent}\nhint: did you mean {RUN}?\n",
    )


@pytest.mark.parametrize("argv", [["report"], ["report", RUN]])
def test_a_report_is_markdown(argv: list[str], fedbench: Fedbench, a_run: Path) -> None:
    report = (TESTS / "golden" / "report.md").read_text()
    assert fedbench(*argv) == (0, report + "\n", "")


def test_a_report_is_json_for_scripts(fedbench: Fedbench, a_run: Path) -> None:
    code, out, err = fedbench("report", "--json")
    summary = json.loads(out)
    assert (code, err, summary["run"], summary["status"]) == (0, "", RUN, "finished")
    assert [len(record["clients"]) for record in summary["rounds"]] == [3, 3]


@pytest.mark.parametrize(
    ("name", "begins"), [("r.csv", "run,experiment,"), ("r.html", "<!DOCTYPE")]
)
def test_a_report_goes_into_a_file(
    name: str, begins: str, fedbench: Fedbench, a_run: Path, tmp_path: Path
) -> None:
    file = tmp_path / name
    assert fedbench("report", RUN, "--output", str(file)) == (0, "", f"wrote {file}\n")
    assert file.read_text().startswith(begins)


def test_a_report_is_of_several_runs(fedbench: Fedbench, a_run: Path) -> None:
    shutil.copytree(a_run, a_run.parent / "other")
    code, out, _ = fedbench("report", RUN, "other", "--format", "csv")
    assert code == 0
    assert [line.split(",")[0] for line in out.splitlines()[1:] if line] == [RUN] * 6 + [
        "other"
    ] * 6
    code, out, _ = fedbench("report", RUN, "other", "--json")
    assert [summary["run"] for summary in json.loads(out)] == [RUN, "other"]


# -- compare


def markdown_rows(out: str) -> list[list[str]]:
    lines = [line for line in out.splitlines() if "|" in line]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]


def test_a_run_is_compared_with_its_twin(fedbench: Fedbench, a_run: Path) -> None:
    twin = Path(shutil.copytree(a_run, a_run.parent / "twin"))
    rounds = (twin / "rounds.jsonl").read_text().replace('"cpu_seconds":4.0', '"cpu_seconds":5.0')
    (twin / "rounds.jsonl").write_text(rounds.replace('"peak_memory_bytes"', '"other"'))
    code, out, err = fedbench("compare", RUN, "twin")
    assert code == 0
    rows = markdown_rows(out)
    assert rows[0] == ["client", "device", "metric", "A", "B", "error %", "spread %", "rounds"]
    assert rows[1][0] == "-" * len(rows[1][0])  # Markdown
    laptop = ["laptop", "laptop", "CPU s", "3.75", "4.25", "+12.5", "+0.0 to +25.0", "2"]
    assert laptop in rows
    assert "note: laptop: peak MiB: only in A\n" in err
    code, out, err = fedbench("compare", RUN, "twin", "--json")
    twins = json.loads(out)
    assert (code, err, twins["a"], twins["b"]) == (0, "", RUN, "twin")
    assert len(twins["unpaired"]) == 3
    errors = {(one["client"], one["metric"]): one["error"] for one in twins["comparisons"]}
    assert (errors["laptop", "CPU s"], errors["workstation", "CPU s"]) == (12.5, 0.0)


@pytest.mark.parametrize("argv", [("x-run", RUN), (RUN, "x-run")])
def test_a_run_to_compare_that_does_not_exist_is_an_error(
    argv: tuple[str, str], fedbench: Fedbench, a_run: Path
) -> None:
    code, out, err = fedbench("compare", *argv)
    assert (code, out) == (5, "")
    assert err.startswith(f"error: no run 'x-run' in {a_run.parent}\n")


# -- calibrate, profile-this-device


def test_without_a_daemon_nothing_is_calibrated(fedbench: Fedbench, places: Places) -> None:
    code, out, err = fedbench("calibrate")
    assert (code, out) == (3, "")
    assert "error: no Docker daemon answers at unix://" in err
    assert not places.root.exists()


@pytest.mark.parametrize("command", ["calibrate", "profile-this-device"])
def test_an_unknown_model_is_a_usage_error(command: str, fedbench: Fedbench) -> None:
    code, out, err = fedbench(command, "--model", "mobilenetv2")
    assert (code, out) == (2, "")
    assert f"{MODEL}, found 'mobilenetv2'; did you mean mobilenet_v2" in err


def test_speeds_are_a_table_or_json(
    fedbench: Fedbench, places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    speed = ModelSpeed(
        model="mobilenet_v2",
        by_threads={1: 660.0, 2: 320.0},
        busy=630.0,
        quota_efficiency=0.97,
        step_cpu_seconds=0.0485,
        spread=(600.0, 700.0),
        of_reference=1.0,
        measured_at=datetime(2026, 1, 2, tzinfo=UTC),
        note="others used 12% of the CPUs",
    )
    asked: list[Any] = []

    def measure(*argv: Any, **options: Any) -> dict[str, ModelSpeed]:
        asked.append((argv[2], argv[3], options))
        return {"mobilenet_v2": speed}

    daemon = SimpleNamespace(
        info=lambda: {"NCPU": 2, "MemTotal": 2**33, "CgroupDriver": "cgroupfs"}
    )
    monkeypatch.setattr(bootstrap, "ensure_docker", lambda say: daemon)
    monkeypatch.setattr(bootstrap, "ensure_client_image", lambda *_, **__: "fedbench:cpu")
    monkeypatch.setattr(calibrate, "calibrate", measure)
    code, out, err = fedbench("calibrate")
    assert (code, err) == (0, "note: mobilenet_v2: others used 12% of the CPUs\n")
    assert markdown_rows(out)[2][:5] == ["mobilenet_v2", "660", "600 to 700", "2: 320", "630"]
    code, out, err = fedbench("calibrate", "--model", "mobilenet_v2", "--fresh", "--json")
    assert ModelSpeed.model_validate(json.loads(out)["mobilenet_v2"]) == speed
    file = places.root / ".fedbench" / "calibration.json"
    assert asked == [
        (MODELS, file, {"cores": 2, "fresh": False}),
        (["mobilenet_v2"], file, {"cores": 2, "fresh": True}),
    ]


def test_a_device_is_printed_or_written_as_yaml(
    fedbench: Fedbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = {"description": "a box: mine", "cores": 2, "memory": "512MiB"}
    monkeypatch.setattr(profiling, "profile", lambda runner, name, *_: {"name": name, **keys})
    file = tmp_path / "box.yaml"
    code, out, err = fedbench("profile-this-device", "--bare", "--name", "my-box")
    assert (code, err, yaml.safe_load(out)) == (0, "", {"name": "my-box", **keys})
    code, out, err = fedbench("profile-this-device", "--bare", "--output", str(file))
    assert (code, out) == (0, "")
    assert err == f"wrote {file}; `fedbench join --device {file}` uses it\n"
    assert load_device(str(file)).name == profiling.default_name()


def test_a_device_needs_a_proper_name(fedbench: Fedbench) -> None:
    code, out, err = fedbench("profile-this-device", "--bare", "--name", "My Box")
    assert (code, out) == (2, "")
    assert f"Invalid value for --name: My Box: {NAME}" in err


# -- data


def test_data_shows_who_holds_what(fedbench: Fedbench) -> None:
    code, out, err = fedbench("data", "legacy-pair", "--json")
    shares = json.loads(out)
    assert (code, shares["test"]) == (0, 359)
    assert {client: sum(held.values()) for client, held in shares["train"].items()} == {
        "legacy-pc-1": 719,
        "legacy-pc-2": 719,
    }
    assert err == f"writing {shares['key']} for 2 clients\n"
    code, out, err = fedbench("data", "legacy-pair")
    assert (code, err) == (0, "")
    rows = [line.split("│") for line in out.splitlines() if "legacy-pc" in line]
    assert [(row[1].strip(), row[-2].strip()) for row in rows] == [
        ("legacy-pc-1", "719"),
        ("legacy-pc-2", "719"),
    ]
    assert out.endswith("359 test images on every client\n")


def test_data_is_divided_as_the_options_say(fedbench: Fedbench) -> None:
    options = ("--set", "data.partition=size", "--set", "data.partition.sizes=[100, 30]")
    code, out, err = fedbench("data", "legacy-pair", *options, "--json")
    held = json.loads(out)["train"]
    assert code == 0
    assert [sum(classes.values()) for classes in held.values()] == [100, 30]
    assert err.startswith("writing digits-size-2-s0-")
    code, out, err = fedbench("data", "heterogeneous", *options)
    assert (code, out) == (4, "")
    assert err == (
        "error: data.partition.sizes: 2 sizes for 3 clients\n"
        "hint: give one size for each client, in the order of `fedbench data`\n"
    )


def test_data_is_drawn(fedbench: Fedbench, tmp_path: Path) -> None:
    file = tmp_path / "held.svg"
    code, out, err = fedbench("data", "legacy-pair", "--picture", str(file))
    assert (code, err.splitlines()[-1]) == (0, f"drawn into {file}")
    assert "legacy-pc-2" in out
    assert "digits, iid: training images of 2 clients, seed 0" in file.read_text()
    code, out, err = fedbench("data", "--picture", "held.jpg")
    assert (code, out) == (2, "")
    assert "held.jpg: expected a .svg or .png file" in err


def test_data_that_is_not_there_is_refused(
    fedbench: Fedbench, tmp_path: Path, places: Places
) -> None:
    empty, missing = tmp_path / "empty", tmp_path / "missing"
    empty.mkdir()
    for source, what in ((missing, "no such folder"), (empty, "holds no train images")):
        for command in ("data", "up"):
            options = ("--set", "data.name=folder", "--data", str(source))
            code, out, err = fedbench(command, *options)
            assert (code, out) == (4, "")
            assert err.startswith(f"error: {source}: {what}\nhint: ")
    assert not places.root.exists()


def test_data_options_that_do_not_fit_are_refused(fedbench: Fedbench, tmp_path: Path) -> None:
    assert fedbench("data", "--data", str(tmp_path)) == (
        4,
        "",
        f"error: {tmp_path}: the data set digits is embedded and reads no folder\n"
        "hint: to train on this folder, set data.name=folder (or cifar10)\n",
    )
    assert fedbench("data", "--set", "data.name=folder") == (
        4,
        "",
        "error: the data set folder needs a folder of images\nhint: pass DATA=<folder>\n",
    )


# -- the host


def test_without_a_daemon_nothing_is_brought_up(fedbench: Fedbench, places: Places) -> None:
    code, out, err = fedbench("up", "legacy-pair")
    assert (code, out) == (3, "")
    endpoint = os.environ["DOCKER_HOST"]
    assert err.splitlines()[-2:] == [
        f"error: no Docker daemon answers at {endpoint}",
        "hint: start it, or choose another one: unset DOCKER_HOST, or `docker context use default`",
    ]
    assert not places.state.exists()


def test_a_federation_whose_daemon_is_gone_is_out_of_reach(
    fedbench: Fedbench, stack: Stack
) -> None:
    for argv in (["status"], ["down"], ["run"]):
        code, out, err = fedbench(*argv)
        assert (code, out) == (3, "")
        assert err.startswith("error: no Docker daemon answers at unix://")


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that this process listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def test_a_port_that_is_taken_is_refused_before_anything_starts(
    fedbench: Fedbench, places: Places, taken: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon = SimpleNamespace(
        info=lambda: {"NCPU": 2, "MemTotal": 8 * 2**30, "CgroupDriver": "cgroupfs"}
    )
    monkeypatch.setattr(bootstrap, "ensure_docker", lambda say: daemon)
    process = psutil.Process()
    code, out, err = fedbench("up", "legacy-pair", "--set", f"ports.server={taken}")
    assert (code, out) == (3, "")
    another = taken + 10 if taken <= 65525 else taken - 10
    assert err.splitlines()[-2:] == [
        f"error: port {taken} (server) is taken by {process.name()} (pid {process.pid})",
        f"hint: stop what uses it, or choose another: --set ports.server={another}",
    ]
    assert not places.state.exists()


# -- what went wrong otherwise


def test_a_defect_is_logged_not_shown(
    fedbench: Fedbench, places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> Any:
        raise RuntimeError("out of [coffee]")

    monkeypatch.setattr(cli, "load_profile", fail)
    log = places.state / "crash.log"
    assert fedbench("plan") == (
        70,
        "",
        "error: fedbench failed: RuntimeError: out of [coffee]\n"
        f"hint: this is a defect; please report it with {log}\n",
    )
    text = log.read_text()
    assert text.startswith("Traceback (most recent call last):")
    assert text.endswith("RuntimeError: out of [coffee]\n")


def test_an_interrupt_is_not_a_defect(
    fedbench: Fedbench, places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "load_profile", interrupt)
    code, out, _ = fedbench("plan")
    assert (code, out) == (130, "")
    assert not places.root.exists()
