"""One fixture file per kind of bad configuration, and what each command says of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from commands import MODEL, NAME, TESTS, Fedbench, unknown

from fedbench.config import CONFIGS
from fedbench.engines.containers import bring_up
from fedbench.host.plan.plan import HostFacts
from fedbench.host.setup.places import Places

INVALID = TESTS / "invalid"

# {} is the path of the file
SIZE = "expected a size such as 8GiB or 512MiB"
TIME = "expected a time such as 10ms or 0.5s"
RATE = "expected a rate such as 10Mbit or 500kbit"
SPEED = "expected a speed such as `225 s/epoch`, `39.1 samples/s` or `0.95x`"
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
    monkeypatch.setattr(bring_up, "_facts", lambda: facts)
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
