from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from fedbench.config import (
    CONFIGS,
    Device,
    Machine,
    Network,
    Profile,
    available,
    load_network,
    load_networks,
)
from fedbench.errors import ConfigError

INVALID = Path(__file__).parents[1] / "invalid/networks"
REFERENCE = yaml.safe_load((CONFIGS / "reference/devices.yaml").read_text(encoding="utf-8"))
CLASSES = REFERENCE["network_classes"]
# Of a reference figure in Mbit/s, ms (there and back) or percent.
KEYS = {
    "down": ("down", 1e6),
    "up": ("up", 1e6),
    "delay_rtt": ("delay", 0.0005),
    "jitter": ("jitter", 0.001),
    "loss": ("loss", 0.01),
}


def test_each_class_of_the_reference_is_there() -> None:
    assert set(available("network")) == CLASSES.keys()


@pytest.mark.parametrize("name", CLASSES)
def test_a_network_has_the_figures_of_the_reference(name: str) -> None:
    network = load_network(name)
    assert network.name == name
    for key, figure in CLASSES[name].items():
        if key in KEYS:
            field, unit = KEYS[key]
            assert getattr(network, field) == pytest.approx(figure["value"] * unit), key
            assert network.sources.get(field) == figure.get("source"), key  # type: ignore[call-overload]


PHONE = Device(name="phone", description="d", cores=1, memory=2**30, network="lte")
DESK = Device(name="desk", description="d", cores=1, memory=2**30)
DEVICES = {"phone": PHONE, "desk": DESK}
INLINE = Network(up=1e6)


@pytest.mark.parametrize(
    ("machine", "profile", "network"),
    [
        (Machine(device="desk"), None, None),
        (Machine(device="desk"), "dsl", load_network("dsl")),
        (Machine(device="phone"), None, load_network("lte")),
        (Machine(device="phone"), "dsl", load_network("dsl")),
        (Machine(device="phone", network="5g"), "dsl", load_network("5g")),
        (Machine(device="phone", network=INLINE), "dsl", INLINE),
        (Machine(device="phone"), INLINE, INLINE),
    ],
)
def test_a_machines_own_network_comes_before_the_profiles_and_that_before_the_devices(
    machine: Machine, profile: str | Network | None, network: Network | None
) -> None:
    federation = Profile(name="one", machines=(machine,), network=profile)
    assert load_networks(federation, DEVICES) == [network]


def test_a_network_may_be_in_another_file_or_folder(tmp_path: Path) -> None:
    file = tmp_path / "networks/mine.yaml"
    file.parent.mkdir()
    file.write_text("description: d\nup: 1.5Mbit\n")
    assert load_network(str(file)).up == load_network("mine", tmp_path).up == 1.5e6
    profile = Profile(name="one", machines=(Machine(device="desk", network="mine"),))
    assert load_networks(profile, DEVICES, tmp_path) == [load_network(str(file))]


def test_a_network_that_is_not_there_is_traced_to_the_machine() -> None:
    profile = Profile(name="one", machines=(Machine(device="desk", network="lt"),))
    with pytest.raises(ConfigError) as caught:
        load_networks(profile, DEVICES)
    assert caught.value.message == (
        "profile one: the network of machines.0 (desk): "
        "unknown network 'lt'; did you mean lte or dsl?"
    )


@pytest.mark.parametrize(
    ("file", "problem"),
    [
        ("bad-rate", "down: expected a rate such as 10Mbit or 500kbit, found 'fast'"),
        ("no-rate", "up: expected a rate such as 10Mbit or 500kbit, found '0Mbit'"),
        ("bad-delay", "delay: expected a time such as 10ms or 0.5s, found '10 minutes'"),
        ("bad-loss", "loss: expected a share such as 0.5% or 0.005, found '101%'"),
        ("unknown-key", "upp: no such key; did you mean up?"),
        ("key-missing", "description: this key is missing"),
        ("bad-name", "name: expected lower-case letters, digits and '-', at most 41 characters"),
        ("not-keys", "expected keys and values, found '10Mbit'"),
        ("source-of-unknown-figure", "sources.speed"),
    ],
)
def test_what_is_no_network_is_refused_with_file_and_key(file: str, problem: str) -> None:
    path = INVALID / f"{file}.yaml"
    with pytest.raises(ConfigError) as caught:
        load_network(str(path))
    assert caught.value.message.startswith(f"{path}: {problem}")
    assert caught.value.hint == f"edit {path}"


def test_each_invalid_file_is_tested() -> None:
    (mark,) = test_what_is_no_network_is_refused_with_file_and_key.pytestmark  # type: ignore[attr-defined]
    assert {file for file, _ in mark.args[1]} == {path.stem for path in INVALID.glob("*.yaml")}
