from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedbench.engines.containers.governor import (
    LATE_SECONDS,
    Governor,
    Observation,
    Reading,
    corrected,
    observe,
    together,
)
from fedbench.host.plan.plan import ClientPlan
from fedbench.host.plan.shares import MARGIN
from fedbench.host.watch.prometheus import Sample

QUOTAS = st.floats(0.01, 64)
OBSERVATIONS = st.builds(Observation, late=st.floats(0, 100), used=st.floats(0.001, 64))


@given(QUOTAS, OBSERVATIONS, st.floats(0.01, 64))
def test_a_quota_is_never_raised_beyond_what_the_host_has(
    quota: float, seen: Observation, most: float
) -> None:
    assert corrected(quota, seen, 0.01, most) <= max(quota, most)


@given(QUOTAS, st.floats(0, LATE_SECONDS), st.floats(0.01, 1))
def test_who_keeps_its_pace_gets_no_more_and_keeps_its_margin(
    quota: float, late: float, share: float
) -> None:
    used = share * quota
    new = corrected(quota, Observation(late, used), 0.01, 64)
    assert min(quota, used * MARGIN) <= new <= quota


@given(QUOTAS, QUOTAS, OBSERVATIONS)
def test_no_quota_sinks_below_the_plan(quota: float, least: float, seen: Observation) -> None:
    assert corrected(quota, seen, least, 64) >= min(quota, least)


@given(QUOTAS)
def test_who_is_late_and_uses_its_quota_up_gets_more(quota: float) -> None:
    assert corrected(quota, Observation(1.0, 0.97 * quota), 0.01, 2 * quota) > quota


@given(QUOTAS)
def test_more_does_not_help_whom_the_host_keeps_waiting(quota: float) -> None:
    assert corrected(quota, Observation(1.0, 0.5 * quota), 0.01, 64) == quota


@given(st.floats(0.05, 0.8), st.floats(0.3, 3))
def test_the_loop_settles(need: float, wrong: float) -> None:
    """Whatever the first quota: a device that needs `need` keeps up, and nothing changes more."""
    quota, late = need * wrong, 0.0
    for _ in range(60):
        before = quota
        got = min(need, quota) if late == 0 else quota
        late = max(0.0, late + 4 * (1 - quota / need))
        quota = corrected(quota, Observation(late, got), 0.01, 1.0)
    assert quota == before
    assert late <= LATE_SECONDS
    assert quota >= 0.99 * need


def test_a_tick_without_training_says_nothing() -> None:
    start = Reading(wall=20, training=10, cpu=5, late=0)
    assert observe(start, Reading(wall=24, training=12, cpu=6, late=0)) is None
    assert observe(start, start) is None  # not scraped since
    seen = observe(start, Reading(wall=24, training=13.9, cpu=6, late=0.5))
    assert seen == Observation(0.5, 0.25)


def test_a_computer_is_as_late_as_its_latest_client() -> None:
    assert together([Observation(0, 0.25), Observation(2, 0.5)]) == Observation(2, 0.75)


# -- the governor


@dataclass
class Quotas:
    """Those of a host, in memory."""

    values: dict[str, float]
    changes: list[str] = field(default_factory=list)

    def in_force(self) -> dict[str, float]:
        return dict(self.values)

    def correct(self, computer: str, cpus: float) -> None:
        self.values[computer] = cpus
        self.changes.append(computer)


@dataclass
class Clients:
    """What Prometheus would say of clients that train all the time."""

    readings: dict[str, Reading]

    def pass_by(self, seconds: float, used: dict[str, float], late: dict[str, float]) -> None:
        for name, reading in self.readings.items():
            self.readings[name] = Reading(
                reading.wall + seconds,
                reading.training + seconds,
                reading.cpu + used[name] * seconds,
                late[name],
            )

    def query(self, expression: str) -> list[Sample]:
        words = (("wall", "sum by"), ("training", "phase"), ("cpu", "cpu"), ("late", "late"))
        name = next(field for field, word in words if word in expression)
        samples = [
            Sample({"client": client}, getattr(reading, name))
            for client, reading in self.readings.items()
        ]
        return [*samples, Sample({"role": "server"}, 3.0)]


PLAN = ClientPlan("laptop", "laptop", 1, 0.4, 50_000, 100_000, None, 2**30)  # half a CPU


def governed(plans: list[ClientPlan], quotas: dict[str, float], cpus: float = 2) -> tuple:
    state = Quotas(quotas)
    clients = Clients({plan.name: Reading(0, 0, 0, 0) for plan in plans})
    return Governor(plans, lambda: state, clients, cpus), state, clients  # type: ignore[arg-type]


def test_a_late_client_is_corrected_and_the_correction_told() -> None:
    governor, quotas, clients = governed([PLAN], {"laptop": 0.5})
    assert governor.tick() == []
    clients.pass_by(4, {"laptop": 0.49}, {"laptop": 0.7})
    (made,) = governor.tick()
    assert (made.computer, made.quota_before, made.quota_after) == ("laptop", 0.5, 0.625)
    assert (made.late, made.used) == (0.7, pytest.approx(0.49))
    assert quotas.values == {"laptop": 0.625}


def test_nothing_is_given_that_others_have() -> None:
    other = replace(PLAN, name="other", device="other")
    governor, quotas, clients = governed([PLAN, other], {"laptop": 0.9, "other": 1.05})
    governor.tick()
    used = {"laptop": 0.9, "other": 0.9}
    clients.pass_by(4, used, {"laptop": 1.0, "other": 0.0})
    governor.tick()
    assert quotas.values == {"laptop": pytest.approx(0.95), "other": 1.05}


def test_a_quota_is_not_raised_beyond_a_clients_threads() -> None:
    governor, quotas, clients = governed([PLAN], {"laptop": 1.0}, cpus=8)
    governor.tick()
    clients.pass_by(4, {"laptop": 1.0}, {"laptop": 1.0})
    assert governor.tick() == []
    assert quotas.changes == []


def test_the_clients_of_a_computer_are_one() -> None:
    pair = [replace(PLAN, name=f"pc-{number}", group="pc-1") for number in (1, 2)]
    governor, _, clients = governed(pair, {"pc-1": 1.0})
    governor.tick()
    clients.pass_by(4, {"pc-1": 0.5, "pc-2": 0.5}, {"pc-1": 0.0, "pc-2": 0.9})
    (made,) = governor.tick()
    assert (made.computer, made.quota_after) == ("pc-1", 1.25)


def test_a_visitor_without_a_plan_is_left_alone() -> None:
    governor, _, clients = governed([PLAN], {"laptop": 0.5})
    clients.readings["visitor"] = Reading(0, 0, 0, 0)
    governor.tick()
    clients.pass_by(4, {"laptop": 0.4, "visitor": 2}, {"laptop": 0, "visitor": 5})
    assert governor.tick() == []
