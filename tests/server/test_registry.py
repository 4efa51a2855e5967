from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from pydantic import ValidationError

from fedbench.config import Experiment
from fedbench.records.pacing import Pacing
from fedbench.server.registry import (
    HUNG_UP,
    SILENCE_SECONDS,
    Announcement,
    Census,
    Ending,
    GoneError,
    NameTakenError,
    Registry,
    UnknownInstanceError,
)
from fedbench.wire import Offer

KILLED = Ending(exit_code=-9, killed_for_memory=True, memory_limit=512 * 2**20)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def signed_off() -> list[int]:
    return []


@pytest.fixture
def registry(clock: Clock, signed_off: list[int]) -> Registry:
    return Registry(signed_off.append, clock)


def announcement(
    client: str = "laptop", instance: str = "first", port: int = 9101, node_id: int | None = None
) -> Announcement:
    return Announcement(
        client=client, device="laptop", instance=instance, metrics_port=port, node_id=node_id
    )


def listed(registry: Registry) -> list[Any]:
    return [target["labels"]["client"] for target in registry.targets()]  # type: ignore[index]


def test_clients_are_prometheus_targets_sorted_by_name(registry: Registry) -> None:
    registry.announce(announcement("workstation"), "10.0.0.2")
    registry.announce(announcement("laptop", port=9201), "10.0.0.1")

    assert registry.targets() == [
        {"targets": ["10.0.0.1:9201"], "labels": {"client": "laptop", "device": "laptop"}},
        {"targets": ["10.0.0.2:9101"], "labels": {"client": "workstation", "device": "laptop"}},
    ]


def test_a_client_of_an_earlier_server_has_to_start_anew(signed_off: list[int]) -> None:
    """Its node is none of this server's: it would wait for messages that nobody sends."""
    nodes = {8}
    registry = Registry(signed_off.append, known=nodes.__contains__)

    with pytest.raises(GoneError):
        registry.announce(announcement(node_id=7), "10.0.0.1")
    assert listed(registry) == []
    registry.announce(announcement(instance="second", node_id=8), "10.0.0.1")
    registry.announce(announcement("stock"), "10.0.0.2")
    assert listed(registry) == ["laptop", "stock"]
    assert signed_off == []


def test_a_server_that_was_frozen_loses_nobody(clock: Clock, signed_off: list[int]) -> None:
    """It heard nothing, and that is no client's fault; who stays silent afterwards is lost."""
    registry = Registry(signed_off.append, clock, pulse=1.0)
    for name, node in (("laptop", 7), ("pc", 8)):
        registry.announce(announcement(name, node_id=node), "10.0.0.1")
    clock.now += 20
    registry.announce(announcement("laptop", node_id=7), "10.0.0.1")  # before it looks again
    assert signed_off == []
    for _ in range(int(SILENCE_SECONDS)):
        registry.expire()
        assert signed_off == []
        clock.now += 1
        registry.announce(announcement("laptop", node_id=7), "10.0.0.1")
    clock.now += 1
    registry.expire()
    assert (listed(registry), signed_off) == (["laptop"], [8])


def test_an_ipv6_address_is_bracketed(registry: Registry) -> None:
    registry.announce(announcement(), "fd00::5")

    assert registry.targets()[0]["targets"] == ["[fd00::5]:9101"]


def test_a_silent_client_is_lost(registry: Registry, clock: Clock, signed_off: list[int]) -> None:
    registry.announce(announcement(node_id=77), "10.0.0.1")

    clock.now += SILENCE_SECONDS
    registry.expire()
    assert (listed(registry), signed_off) == (["laptop"], [])
    clock.now += 0.001
    registry.expire()
    assert (listed(registry), signed_off) == ([], [77])
    assert registry.reason(77, "laptop") == "nothing was heard from it for 12 s"
    assert registry.lost() == {"laptop": 1}
    with pytest.raises(GoneError):  # its node was signed off: it starts anew
        registry.announce(announcement(node_id=77), "10.0.0.1")


def test_a_run_says_how_long_a_silence_is_a_loss(registry: Registry, clock: Clock) -> None:
    registry.run = Offer(experiment=Experiment(name="e", silence_seconds=60), data="digits")
    registry.announce(announcement(), "10.0.0.1")
    clock.now += 60
    registry.expire()
    assert listed(registry) == ["laptop"]
    clock.now += 1
    registry.expire()
    assert listed(registry) == []


def test_a_client_far_away_may_be_silent_for_a_round_trip_longer(
    registry: Registry, clock: Clock
) -> None:
    far = announcement(node_id=77).model_copy(update={"round_trip": 20.0})
    registry.announce(far, "10.0.0.1")
    registry.announce(announcement("near"), "10.0.0.2")

    clock.now += SILENCE_SECONDS + 20
    registry.expire()
    assert listed(registry) == ["laptop"]
    clock.now += 0.001
    registry.expire()
    assert listed(registry) == []
    assert registry.reason(77, "laptop") == "nothing was heard from it for 32 s"


def test_announcing_again_keeps_a_client_listed_where_it_is_now(
    registry: Registry, clock: Clock
) -> None:
    registry.announce(announcement(), "10.0.0.1")
    clock.now += SILENCE_SECONDS - 1
    registry.announce(announcement(), "10.0.0.9")
    clock.now += SILENCE_SECONDS - 1

    assert [target["targets"] for target in registry.targets()] == [["10.0.0.9:9101"]]


def test_the_pace_of_a_client_is_the_one_that_it_said_last(
    registry: Registry, clock: Clock
) -> None:
    first = Pacing(wall=10, training=8, cpu=4, late=0)
    for pacing in (first, first.model_copy(update={"wall": 15.0, "late": 1.0})):
        said = announcement("laptop").model_copy(update={"pacing": pacing})
        registry.announce(said, "10.0.0.1")
    registry.announce(announcement("real-device"), "10.0.0.2")
    assert registry.pacing() == {"laptop": pacing}
    clock.now += 31
    registry.expire()
    assert registry.pacing() == {}


def test_a_name_belongs_to_the_client_that_is_alive(registry: Registry, clock: Clock) -> None:
    registry.announce(announcement(instance="first"), "10.0.0.1")

    with pytest.raises(NameTakenError, match="laptop"):
        registry.announce(announcement(instance="second"), "10.0.0.2")
    assert registry.targets()[0]["targets"] == ["10.0.0.1:9101"]

    clock.now += SILENCE_SECONDS + 1
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
        {"node_id": 0},
        {"node_id": 2**64},
        {"extra": 1},
    ],
)
def test_what_prometheus_could_not_take_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Announcement.model_validate(announcement().model_dump() | change)


def test_a_client_that_died_is_forgotten_and_its_node_signed_off(
    registry: Registry, signed_off: list[int]
) -> None:
    registry.announce(announcement(node_id=77), "10.0.0.1")
    registry.end("laptop", "first", KILLED)

    assert signed_off == [77]
    assert listed(registry) == []
    assert (
        registry.reason(77, "laptop") == "killed for memory: its limit is 512 MiB (device laptop)"
    )
    registry.announce(announcement(instance="second", node_id=78), "10.0.0.1")
    assert listed(registry) == ["laptop"]
    assert registry.reason(78, "laptop") is None


@pytest.mark.parametrize(
    ("ending", "reason"),
    [
        (KILLED, "killed for memory: its limit is 512 MiB (device laptop)"),
        (
            KILLED.model_copy(update={"memory_limit": None}),
            "killed for memory: it has no limit (device laptop)",
        ),
        (
            Ending(exit_code=-11, killed_for_memory=False, memory_limit=None),
            "the client's process died (signal 11)",
        ),
        (
            Ending(exit_code=3, killed_for_memory=False, memory_limit=None),
            "the client's process died (exit code 3)",
        ),
    ],
)
def test_the_reason_says_what_it_died_of(ending: Ending, reason: str) -> None:
    assert ending.reason("laptop") == reason


@pytest.mark.parametrize(("client", "instance"), [("laptop", "second"), ("unknown", "first")])
def test_nobody_reports_the_end_of_another(
    registry: Registry, signed_off: list[int], client: str, instance: str
) -> None:
    registry.announce(announcement(node_id=77), "10.0.0.1")

    with pytest.raises(UnknownInstanceError, match=client):
        registry.end(client, instance, KILLED)

    assert listed(registry) == ["laptop"]
    assert signed_off == []
    assert registry.reason(77, "laptop") is None


def test_an_end_is_reported_once(registry: Registry, signed_off: list[int]) -> None:
    registry.announce(announcement(node_id=77), "10.0.0.1")
    registry.end("laptop", "first", KILLED)

    with pytest.raises(UnknownInstanceError):
        registry.end("laptop", "first", KILLED)
    assert signed_off == [77]


def test_a_client_whose_node_only_flower_knows_is_remembered_by_name(
    registry: Registry, signed_off: list[int], clock: Clock
) -> None:
    registry.announce(announcement(), "10.0.0.1")
    registry.end("laptop", "first", KILLED)

    assert signed_off == []
    assert (registry.reason(77, "laptop") or "").startswith("killed for memory")
    assert registry.reason(77, "workstation") is None
    clock.now += 300  # another loss of that client, if there was one, had another reason
    assert registry.reason(77, "laptop") is None


def test_what_a_silent_client_died_of_may_still_be_said(
    registry: Registry, signed_off: list[int], clock: Clock
) -> None:
    """Just before it is killed for memory, a client may hardly get on."""
    registry.announce(announcement(node_id=77), "10.0.0.1")
    clock.now += 60
    registry.expire()
    registry.end("laptop", "first", KILLED)

    assert signed_off == [77]
    assert (registry.reason(77, "laptop") or "").startswith("killed for memory")


def test_a_client_is_back_after_a_silence_as_another(
    registry: Registry, signed_off: list[int], clock: Clock
) -> None:
    registry.announce(announcement(node_id=77), "10.0.0.1")
    clock.now += SILENCE_SECONDS + 1
    registry.announce(announcement(instance="second", node_id=78), "10.0.0.1")

    assert signed_off == [77]
    assert listed(registry) == ["laptop"]


def test_names_of_long_ago_are_not_kept(registry: Registry, clock: Clock) -> None:
    for number in range(100):
        registry.announce(announcement(client=f"laptop-{number}", node_id=number + 2), "10.0.0.1")
        registry.end(f"laptop-{number}", "first", KILLED)
        registry.announce(announcement(client=f"pc-{number}"), "10.0.0.1")
        clock.now += 10

    assert len(registry._entries) == 2
    assert len(registry._losses) == len(registry._gone) == 26


@pytest.mark.parametrize(
    "change",
    [
        {"exit_code": 256},
        {"exit_code": -65},
        {"memory_limit": 0},
        {"killed_for_memory": "often"},
        {"reason": "x"},
    ],
)
def test_an_ending_that_makes_no_sense_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Ending.model_validate(KILLED.model_dump() | change)


def present(registry: Registry) -> dict[str, bool]:
    return {p.client: p.here for p in registry.presence()}


def test_a_client_that_left_is_remembered_for_ten_minutes(registry: Registry, clock: Clock) -> None:
    registry.announce(announcement(), "10.0.0.1")
    clock.now += 20
    registry.leave("laptop", "first")
    assert present(registry) == {"laptop": False}

    clock.now += 600
    assert present(registry) == {"laptop": False}
    clock.now += 1
    assert present(registry) == {}
    assert (registry.joined, registry.lost()) == (1, {"laptop": 0})


def test_each_way_to_be_lost_counts_once(registry: Registry, clock: Clock) -> None:
    registry.announce(announcement(node_id=77), "10.0.0.1")
    registry.end("laptop", "first", KILLED)
    assert present(registry) == {"laptop": False}
    assert (registry.joined, registry.lost()) == (1, {"laptop": 1})

    registry.announce(announcement(instance="second", node_id=78), "10.0.0.1")
    clock.now += SILENCE_SECONDS + 1
    registry.announce(announcement(instance="third", node_id=79), "10.0.0.1")
    registry.announce(announcement(instance="third", node_id=79), "10.0.0.1")

    assert present(registry) == {"laptop": True}
    assert (registry.joined, registry.lost()) == (3, {"laptop": 2})


def test_who_was_lost_is_known_by_name(registry: Registry) -> None:
    for client in ("laptop", "pc"):
        registry.announce(announcement(client=client), "10.0.0.1")
    registry.end("pc", "first", KILLED)
    registry.leave("laptop", "first")

    exposition = CollectorRegistry()
    exposition.register(Census(registry))
    name = "fedbench_client_lost_total"
    assert exposition.get_sample_value(name, {"client": "pc"}) == 1
    assert exposition.get_sample_value(name, {"client": "laptop"}) == 0


def test_a_client_that_hung_up_and_is_not_heard_of_is_lost(
    registry: Registry, signed_off: list[int]
) -> None:
    registry.announce(announcement(node_id=77), "10.0.0.1")
    registry.hung_up("laptop", "first")
    assert listed(registry) == ["laptop"], "its connection alone may have broken"
    registry.miss("laptop", "first")

    assert (listed(registry), signed_off) == ([], [77])
    assert registry.reason(77, "laptop") == HUNG_UP
    assert registry.lost() == {"laptop": 1}


def test_a_client_that_announces_itself_again_only_lost_its_connection(
    registry: Registry, signed_off: list[int]
) -> None:
    registry.announce(announcement(node_id=77), "10.0.0.1")
    registry.hung_up("laptop", "first")
    registry.announce(announcement(node_id=77), "10.0.0.1")
    registry.miss("laptop", "first")

    assert (listed(registry), signed_off) == (["laptop"], [])


def test_a_client_that_hung_up_may_start_anew_at_once(
    registry: Registry, signed_off: list[int]
) -> None:
    registry.announce(announcement(node_id=77), "10.0.0.1")
    registry.hung_up("laptop", "first")
    registry.announce(announcement(instance="second", node_id=78), "10.0.0.1")
    registry.miss("laptop", "first")

    assert (listed(registry), signed_off) == (["laptop"], [77])
    assert registry.reason(77, "laptop") == HUNG_UP
    assert registry.lost() == {"laptop": 1}


def test_what_a_client_died_of_may_be_said_after_it_was_missed(
    registry: Registry, signed_off: list[int]
) -> None:
    registry.announce(announcement(node_id=77), "10.0.0.1")
    registry.hung_up("laptop", "first")
    registry.miss("laptop", "first")
    registry.end("laptop", "first", KILLED)

    assert (registry.reason(77, "laptop") or "").startswith("killed for memory")
    assert (signed_off, registry.lost()) == ([77], {"laptop": 1})
    with pytest.raises(UnknownInstanceError):
        registry.end("laptop", "first", KILLED)


def test_who_is_gone_does_not_come_back_as_the_same(registry: Registry, clock: Clock) -> None:
    registry.announce(announcement(), "10.0.0.1")
    registry.leave("laptop", "first")
    with pytest.raises(GoneError, match="laptop"):
        registry.announce(announcement(), "10.0.0.1")

    registry.announce(announcement(instance="second"), "10.0.0.1")
    assert listed(registry) == ["laptop"]


def test_nobody_hangs_up_for_another(registry: Registry, signed_off: list[int]) -> None:
    registry.announce(announcement(node_id=77), "10.0.0.1")
    for client, instance in (("laptop", "second"), ("unknown", "first")):
        registry.hung_up(client, instance)
        registry.miss(client, instance)

    assert (listed(registry), signed_off) == (["laptop"], [])
