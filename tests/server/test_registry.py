from typing import Any

import pytest
from pydantic import ValidationError

from fedbench.server.registry import EXPIRES_SECONDS, Announcement, NameTakenError, Registry


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def registry(clock: Clock) -> Registry:
    return Registry(clock)


def announcement(client: str = "laptop", instance: str = "first", port: int = 9101) -> Announcement:
    return Announcement(client=client, device="laptop", instance=instance, metrics_port=port)


def listed(registry: Registry) -> list[Any]:
    return [target["labels"]["client"] for target in registry.targets()]  # type: ignore[index]


def test_clients_are_prometheus_targets_sorted_by_name(registry: Registry) -> None:
    registry.announce(announcement("workstation"), "10.0.0.2")
    registry.announce(announcement("laptop", port=9201), "10.0.0.1")

    assert registry.targets() == [
        {"targets": ["10.0.0.1:9201"], "labels": {"client": "laptop", "device": "laptop"}},
        {"targets": ["10.0.0.2:9101"], "labels": {"client": "workstation", "device": "laptop"}},
    ]


def test_an_ipv6_address_is_bracketed(registry: Registry) -> None:
    registry.announce(announcement(), "fd00::5")

    assert registry.targets()[0]["targets"] == ["[fd00::5]:9101"]


def test_a_silent_client_is_forgotten(registry: Registry, clock: Clock) -> None:
    registry.announce(announcement(), "10.0.0.1")

    clock.now += EXPIRES_SECONDS
    assert listed(registry) == ["laptop"]
    clock.now += 0.001
    assert listed(registry) == []


def test_announcing_again_keeps_a_client_listed_where_it_is_now(
    registry: Registry, clock: Clock
) -> None:
    registry.announce(announcement(), "10.0.0.1")
    clock.now += EXPIRES_SECONDS - 1
    registry.announce(announcement(), "10.0.0.9")
    clock.now += EXPIRES_SECONDS - 1

    assert [target["targets"] for target in registry.targets()] == [["10.0.0.9:9101"]]


def test_a_name_belongs_to_the_client_that_is_alive(registry: Registry, clock: Clock) -> None:
    registry.announce(announcement(instance="first"), "10.0.0.1")

    with pytest.raises(NameTakenError, match="laptop"):
        registry.announce(announcement(instance="second"), "10.0.0.2")
    assert registry.targets()[0]["targets"] == ["10.0.0.1:9101"]

    clock.now += EXPIRES_SECONDS + 1
    registry.announce(announcement(instance="second"), "10.0.0.2")
    assert registry.targets()[0]["targets"] == ["10.0.0.2:9101"]


def test_a_client_that_says_goodbye_is_forgotten_at_once(registry: Registry) -> None:
    registry.announce(announcement(instance="first"), "10.0.0.1")
    registry.leave("laptop", "first")
    registry.announce(announcement(instance="second"), "10.0.0.2")

    assert registry.targets()[0]["targets"] == ["10.0.0.2:9101"]


def test_nobody_says_goodbye_for_another(registry: Registry) -> None:
    registry.announce(announcement(instance="first"), "10.0.0.1")
    registry.leave("laptop", "second")
    registry.leave("unknown", "first")

    assert listed(registry) == ["laptop"]


@pytest.mark.parametrize(
    "change",
    [
        {"client": "Laptop"},
        {"client": ""},
        {"client": "a" * 42},
        {"client": 'x"} evil'},
        {"device": "laptop\n"},
        {"metrics_port": 0},
        {"metrics_port": 65536},
        {"extra": 1},
    ],
)
def test_what_prometheus_could_not_take_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Announcement.model_validate(announcement().model_dump() | change)
