"""One fixture file per kind of bad configuration, and what each command says of it.

Each case has the keys that its message must name. The whole messages are golden texts, in
tests/golden/messages.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import golden
import pytest
from commands import TESTS, Fedbench

from fedbench.config import available
from fedbench.engines.containers import bring_up
from fedbench.host.plan.plan import HostFacts
from fedbench.host.setup.places import Places

INVALID = TESTS / "invalid"
MESSAGES = TESTS / "golden" / "messages"

BAD_DEVICES: dict[str, list[str]] = {
    "Bad_Name": ["name"],
    "a-list": [],
    "bad-delay": ["network.delay"],
    "bad-jitter": ["network.jitter"],
    "bad-loss": ["network.loss"],
    "bad-network-name": ["network"],
    "bad-rate": ["network.down"],
    "bad-speed-unit": ["speed.mobilenet_v2"],
    "capacity-below-speed": ["capacity.mobilenet_v2"],
    "capacity-without-speed": ["capacity.mobilenet_v1"],
    "empty": [],
    "gpu-as-text": ["gpu"],
    "infinite": ["cores"],
    "key-missing": ["memory"],
    "load-below-idle": ["watts.load"],
    "negative-watts": ["watts.idle"],
    "network-as-number": ["network"],
    "no-rate": ["network.up"],
    "no-speed": ["speed.mobilenet_v2"],
    "beyond-all-sizes": ["memory"],
    "not-a-size": ["memory"],
    "not-utf8": [],
    "not-yaml": [],
    "out-of-range": ["cores"],
    "several-problems": ["cores", "memory", "colour"],
    "source-of-unknown-figure": ["sources.speed.mobilenet_v1"],
    "speed-as-text": ["speed"],
    "speed-of-unknown-model": ["speed.mobilenet_v4"],
    "too-little-memory": ["memory"],
    "unknown-gpu-key": ["gpu.modle"],
    "unknown-key": ["core"],
    "unknown-network-key": ["network.dwon"],
    "wrong-type": ["cores"],
}
BAD_PROFILES: dict[str, list[str]] = {
    "a-list": [],
    "bad-name": ["machines.0.name"],
    "bad-rate": ["network.up"],
    "device-of-no-known-name": ["machines.0.device"],
    "dilation-below-one": ["dilation"],
    "empty": [],
    "machine-as-text": ["machines.0"],
    "machine-bad-delay": ["machines.0.network.delay"],
    "machine-negative-gpu": ["machines.0.gpu"],
    "machine-unknown-network-key": ["machines.0.network.los"],
    "machines-as-text": ["machines"],
    "named-server": ["machines"],
    "no-clients": ["machines"],
    "no-machines-key": ["machines"],
    "not-yaml": [],
    "out-of-range": ["ports.server"],
    "two-of-one-name": ["machines"],
    "two-of-one-numbered-name": ["machines"],
    "unknown-device": ["machines.1.device"],
    "unknown-key": ["stritc"],
    "unknown-machine-key": ["machines.0.cuont"],
    "unknown-node": ["node"],
    "unknown-port": ["ports.sever"],
    "wrong-type": ["machines.0.count"],
}
BAD_EXPERIMENTS: dict[str, list[str]] = {
    "a-list": [],
    "data-as-text": ["data"],
    "empty": [],
    "infinite": ["learning_rate"],
    "key-of-no-known-name": ["data.zzz"],
    "model-as-number": ["model"],
    "model-of-no-possible-name": ["model"],
    "not-yaml": [],
    "out-of-range": ["rounds", "fraction", "batch_size", "learning_rate", "seed"],
    "own-model-without-callable": ["model"],
    "partition-out-of-range": ["data.partition.alpha", "data.partition.min_samples"],
    "rounds-out-of-range": [
        "round_timeout_seconds",
        "deadline_factor",
        "over_selection",
        "min_clients",
        "below_minimum",
        "failing_rounds",
        "late_results",
    ],
    "sizes-and-law": ["data.partition.law"],
    "unknown-data": ["data.name"],
    "unknown-data-key": ["data.partitions"],
    "unknown-partition": ["data.partition"],
    "unknown-partition-key": ["data.partition.per_clients"],
    "unknown-key": ["round"],
    "unknown-model": ["model"],
    "unknown-option": [
        "optimizer",
        "schedule",
        "augmentation",
        "label_smoothing",
        "stem_stride",
        "batch_norm",
        "server_momentum",
    ],
    "wrong-type": ["rounds"],
}
BAD_SWEEPS: dict[str, list[str]] = {
    "a-list": [],
    "bad-name": ["name"],
    "empty": [],
    "grid-as-list": ["grid"],
    "key-below-a-value": ["rounds.all"],
    "key-missing": ["profile"],
    "key-set-and-varied": ["grid.rounds"],
    "key-twice": ["grid.rounds"],
    "name-in-grid": ["grid.name"],
    "negative-seed": ["seed"],
    "no-seeds": ["seeds"],
    "no-values": ["grid.rounds"],
    "not-yaml": [],
    "seed-in-grid": ["grid.seed"],
    "seeds-as-text": ["seeds"],
    "unknown-experiment": ["experiment"],
    "unknown-experiment-key": ["data.partitions", "local_epoch"],
    "unknown-key": ["grids"],
    "unknown-profile": ["profile"],
    "value-not-a-list": ["grid.rounds"],
    "value-twice": ["grid.rounds"],
    "values-of-unequal-length": ["grid.rounds, local_epochs"],
    "values-out-of-range": ["rounds", "model"],
}
SMALL_HOSTS = {
    "strict-cores": HostFacts(cpus=4, memory=960 * 2**30),
    "strict-memory": HostFacts(cpus=12, memory=8 * 2**30),
}
WRONG_OPTIONS = (
    ["plan", "hetero"],
    ["up", "../profiles/heterogeneous"],
    ["data", "-e", "digts"],
    ["sweep", "partitons"],
    ["sweep", "partitions", "--set", "local_epochs=3"],
    ["sweep", "partitions", "--set", "rounds=many"],
    ["join", "--server", "localhost:9092", "--device", "lptop"],
    ["plan", "nowhere.yaml"],
    ["plan", "--set", "rounds"],
    ["plan", "--set", "stritc=true"],
    ["plan", "--set", "=3"],
    ["plan", "--set", "strict=[1"],
    ["plan", "--set", "strict.really=1"],
    ["plan", "--set", "machines.device=laptop"],
    ["plan", "--set", "strict=1"],
    ["up", "--set", "rounds=many"],
    ["up", "--set", "data.nmae=digits"],
    ["up", "--set", "ports.promethus=9091"],
    ["join", "--server", "localhost:9092", "--device", "laptop", "--name", "My Laptop"],
)


def golden_message(err: str) -> str:
    """Return a message as the golden file has it: without what differs between checkouts.

    Paths are those below the checkout. Lists of all names in a folder of configs are left out.
    """
    for kind in ("device", "profile", "experiment", "sweep"):
        err = err.replace(f": {', '.join(available(kind))};", ": …;")
    return err.replace(f"{TESTS.parent}/", "")


def check(kind: str, file: Path, keys: Sequence[str], answer: tuple[int, str, str]) -> None:
    """Fail the test unless a command refused the file, named it and each key, as it did before."""
    code, out, err = answer
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert file.stem in err
    for key in keys:
        assert f"{key}: " in err
    golden.check_section(MESSAGES / f"{kind}.txt", file.stem, golden_message(err))


@pytest.mark.parametrize("name", BAD_DEVICES)
def test_a_bad_device_is_refused(name: str, fedbench: Fedbench) -> None:
    file = INVALID / "devices" / f"{name}.yaml"
    answer = fedbench("join", "--server", "localhost:9092", "--device", str(file))
    check("devices", file, BAD_DEVICES[name], answer)


@pytest.mark.parametrize("name", BAD_PROFILES)
@pytest.mark.parametrize("command", ["plan", "up", "data"])
def test_a_bad_profile_is_refused(
    name: str, command: str, fedbench: Fedbench, places: Places
) -> None:
    file = INVALID / "profiles" / f"{name}.yaml"
    check("profiles", file, BAD_PROFILES[name], fedbench(command, str(file)))
    assert not places.root.exists()


@pytest.mark.parametrize("name", BAD_EXPERIMENTS)
def test_a_bad_experiment_is_refused(name: str, fedbench: Fedbench, places: Places) -> None:
    file = INVALID / "experiments" / f"{name}.yaml"
    answer = fedbench("data", "--experiment", str(file))
    check("experiments", file, BAD_EXPERIMENTS[name], answer)
    assert not places.root.exists()


@pytest.mark.parametrize("name", BAD_SWEEPS)
def test_a_bad_sweep_is_refused(name: str, fedbench: Fedbench, places: Places) -> None:
    file = INVALID / "sweeps" / f"{name}.yaml"
    answer = fedbench("sweep", "partitions", str(file))
    check("sweeps", file, BAD_SWEEPS[name], answer)
    assert not places.root.exists()


@pytest.mark.parametrize("name", SMALL_HOSTS)
def test_strict_refuses_a_host_that_is_too_small(
    name: str, fedbench: Fedbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bring_up, "_facts", lambda: SMALL_HOSTS[name])
    code, out, err = fedbench("plan", str(INVALID / "profiles" / f"{name}.yaml"))
    assert (code, out) == (3, "")
    assert f"profile {name} is strict" in err
    golden.check_section(MESSAGES / "hosts.txt", name, golden_message(err))


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
    ("file", "titles"),
    [
        ("devices", BAD_DEVICES),
        ("profiles", BAD_PROFILES),
        ("experiments", BAD_EXPERIMENTS),
        ("sweeps", BAD_SWEEPS),
        ("hosts", SMALL_HOSTS),
        ("options", [" ".join(argv) for argv in WRONG_OPTIONS]),
    ],
)
def test_every_golden_message_is_of_a_test(file: str, titles: Sequence[str]) -> None:
    assert golden.sections(MESSAGES / f"{file}.txt").keys() <= {*titles}


@pytest.mark.parametrize("argv", WRONG_OPTIONS, ids=" ".join)
def test_a_wrong_name_or_option_is_explained(
    argv: list[str], fedbench: Fedbench, places: Places
) -> None:
    code, out, err = fedbench(*argv)
    assert (code, out) == (2, "")
    assert argv[-1].partition("=")[0] in err
    golden.check_section(MESSAGES / "options.txt", " ".join(argv), golden_message(err))
    assert not places.root.exists()
