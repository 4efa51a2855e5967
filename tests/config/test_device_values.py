from __future__ import annotations

from typing import Any

import pytest
import yaml

from fedbench.config import CONFIGS, Device, Gpu, Network, Watts, available, load_device
from fedbench.config.device_values import disagreements

FULL = Device(
    name="full",
    description="d",
    cores=2.5,
    threads=5,
    memory=8 * 2**30,
    gpu=Gpu(model="G", memory=6 * 2**30, share=0.5),
    speed={"mobilenet_v2": 39.123},
    capacity={"mobilenet_v2": 40},
    watts=Watts(idle=1.6, load=5),
    network=Network(down="10Mbit", up=5e5, delay="10ms", loss="0.5%"),
    sources={"cores": "a paper", "network.down": "a page"},
)


def test_each_figure_has_its_unit() -> None:
    assert FULL.figures() == {
        "cores": "2.5",
        "threads": "5",
        "memory": "8 GiB",
        "gpu.model": "G",
        "gpu.memory": "6 GiB",
        "speed.mobilenet_v2": "39.12 samples/s",
        "capacity.mobilenet_v2": "40 samples/s",
        "watts.idle": "1.6 W",
        "watts.load": "5 W",
        "network.down": "10 Mbit/s",
        "network.up": "500 kbit/s",
        "network.delay": "10 ms",
        "network.jitter": "0 ms",
        "network.loss": "0.5 %",
    }


def test_what_a_device_lacks_is_no_figure() -> None:
    bare = Device(name="bare", description="d", cores=1, memory=2**30, network="lte")
    assert bare.figures() == {"cores": "1", "memory": "1 GiB", "network": "lte"}


def test_a_figure_without_a_source_is_estimated() -> None:
    assert set(FULL.estimated()) == FULL.figures().keys() - {"cores", "network.down"}


@pytest.mark.parametrize(
    ("change", "keys"),
    [
        ({}, []),
        ({"sources": {"cores": "a", "speed": "b", "name": "c"}}, ["sources.speed", "sources.name"]),
        ({"capacity": {"mobilenet_v1": 1.0}}, ["capacity.mobilenet_v1"]),
        ({"capacity": {"mobilenet_v2": 39.0}}, ["capacity.mobilenet_v2"]),
        ({"capacity": {"mobilenet_v2": 39.123}}, []),
        ({"watts": {"idle": 5.1, "load": 5.0}}, ["watts.load"]),
        ({"watts": {"idle": 5.0, "load": 5.0}}, []),
        ({"watts": None}, []),
    ],
)
def test_figures_that_do_not_fit_the_others_are_named(
    change: dict[str, Any], keys: list[str]
) -> None:
    assert [key for key, _ in disagreements(FULL.model_dump() | change)] == keys


# -- the devices that fedbench ships

SHIPPED = available("device")


def explained(name: str) -> set[str]:
    """The keys of a device's file with a comment on their line or on the line above."""
    text = (CONFIGS / "devices" / f"{name}.yaml").read_text(encoding="utf-8")
    lines = text.splitlines()

    def keys(node: yaml.MappingNode, prefix: str) -> dict[str, int]:
        found = {}
        for key, value in node.value:
            found[prefix + key.value] = key.start_mark.line
            if isinstance(value, yaml.MappingNode):
                found |= keys(value, f"{prefix}{key.value}.")
        return found

    return {
        key
        for key, line in keys(yaml.compose(text), "").items()
        if " # " in lines[line] or lines[line - 1].lstrip().startswith("# ")
    }


@pytest.mark.parametrize("name", SHIPPED)
def test_an_estimate_is_explained_beside_it(name: str) -> None:
    device = load_device(name)
    given = {key for key in device.estimated() if key not in DEFAULTS}
    assert given <= explained(name)


DEFAULTS = {"network.delay", "network.jitter", "network.loss"}
"""A device that is on a cable leaves them out."""


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_device_says_how_fast_it_is_and_what_it_draws(name: str) -> None:
    device = load_device(name)
    assert device.speed
    assert device.watts
    assert device.threads


def test_what_the_paper_and_its_readers_have_is_shipped() -> None:
    paper = {"workstation", "workstation-gpu", "laptop", "laptop-cpu", "legacy-pc"}
    assert paper < set(SHIPPED)
    assert len(SHIPPED) >= len(paper) + 10


@pytest.mark.parametrize("name", ["workstation", "workstation-gpu", "laptop", "laptop-cpu"])
def test_speeds_of_the_paper_have_their_table(name: str) -> None:
    assert load_device(name).sources["speed.mobilenet_v2"].startswith("Negi & Chinara, Table II")
