from __future__ import annotations

import json
import os
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from fake_containers import FakeContainers
from hypothesis import given
from hypothesis import strategies as st

from fedbench.config import load_devices, load_profile
from fedbench.engines.containers import governor
from fedbench.engines.containers.governor import (
    LATE_SECONDS,
    Governor,
    Observation,
    corrected,
    observe,
    together,
)
from fedbench.engines.containers.runtime import daemon
from fedbench.engines.containers.runtime.stack import Stack, require
from fedbench.host.plan.plan import ClientPlan, HostFacts, plan
from fedbench.host.plan.shares import MARGIN
from fedbench.host.setup import bootstrap
from fedbench.host.setup.places import PROJECT, Places
from fedbench.host.watch.vigil import is_watched, watching
from fedbench.records import executing, pacing, quota_corrections, write_summary
from fedbench.records.pacing import Pacing
from fedbench.records.runs import Run

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
    start = Pacing(wall=20, training=10, cpu=5, late=0)
    assert observe(start, Pacing(wall=24, training=12, cpu=6, late=0)) is None
    assert observe(start, start) is None  # it said nothing since
    assert observe(start, Pacing(wall=3, training=3, cpu=1, late=0)) is None  # it started again
    seen = observe(start, Pacing(wall=24, training=13.9, cpu=6, late=0.5))
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
    """What clients say that train all the time."""

    paces: dict[str, Pacing]

    def pass_by(self, seconds: float, used: dict[str, float], late: dict[str, float]) -> None:
        for name, pace in self.paces.items():
            self.paces[name] = Pacing(
                wall=pace.wall + seconds,
                training=pace.training + seconds,
                cpu=pace.cpu + used[name] * seconds,
                late=late[name],
            )


START = Pacing(wall=0, training=0, cpu=0, late=0)
PLAN = ClientPlan("laptop", "laptop", 1, 0.4, 50_000, 100_000, None, 2**30)  # half a CPU


def governed(plans: list[ClientPlan], quotas: dict[str, float], cpus: float = 2) -> tuple:
    state = Quotas(quotas)
    clients = Clients({plan.name: START for plan in plans})
    governor = Governor(plans, lambda: state, lambda: clients.paces, cpus)  # type: ignore[arg-type,return-value]
    return governor, state, clients


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
    clients.paces["visitor"] = START
    governor.tick()
    clients.pass_by(4, {"laptop": 0.4, "visitor": 2}, {"laptop": 0, "visitor": 5})
    assert governor.tick() == []


def test_a_client_that_said_nothing_new_changes_nothing() -> None:
    governor, quotas, clients = governed([PLAN], {"laptop": 0.5})
    governor.tick()
    clients.pass_by(5, {"laptop": 0.49}, {"laptop": 0.7})
    assert len(governor.tick()) == 1
    assert governor.tick() == []
    assert quotas.values == {"laptop": 0.625}


# -- a run's governor, with containers and no monitoring at all


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The folder of a run on one legacy PC under half a CPU."""
    places = Places(tmp_path)
    profile = load_profile("legacy-pair", ["machines=[{device: legacy-pc}]", "dilation=8"])
    made = plan(profile, load_devices(profile), HostFacts(cpus=2, memory=8 * 2**30))
    images = {"fedbench": "fedbench:cpu", "prometheus": "p", "grafana": None}
    Stack.write(places, made, load_devices(profile), images)
    folder = places.runs / "r1"
    folder.mkdir()
    (folder / "run.json").write_text(
        json.dumps(
            {
                "run": "r1",
                "experiment": "digits",
                "profile": "legacy-pc",
                "created": "2026-01-02T03:04:05+00:00",
            }
        )
    )
    return folder


def test_a_run_is_governed_by_what_its_folder_says(
    run: Path, fake: FakeContainers, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack = require(Places(run.parents[1]))
    (client,) = stack.clients
    fake.add(client.name, cpu_period=client.period, cpu_quota=client.quota)
    fake.add("server")
    fake.say("server", (1, '{"level": "info", "message": "hello", "run": "r1"}'))
    used, late = 0.99 * client.cpus, 2.0
    paces = [
        START,
        Pacing(wall=5, training=5, cpu=5 * used, late=late),
        Pacing(wall=10, training=10, cpu=10 * used, late=late),
    ]
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pacing.write(run, {client.name: paces[len(pauses)]})
        pauses.append(seconds)

    monkeypatch.setattr("time.sleep", pause)
    monkeypatch.setattr("psutil.pid_exists", lambda _: len(pauses) < len(paces))
    governor.main(run, 1)
    given = [quota / client.period for quota in fake.quotas[client.name]]
    assert given == [pytest.approx(1.25 * client.cpus, rel=1e-3)]
    (correction,) = quota_corrections.read(run)
    assert (correction.computer, correction.late) == (client.name, late)
    assert correction.quota_after == pytest.approx(given[0], rel=1e-3)
    assert "hello" in (run / "logs.jsonl").read_text()


def test_what_becomes_of_docker_meanwhile_ends_no_vigil(
    run: Path, fake: FakeContainers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Docker is away, comes back with a server that it does not start, and the run goes on."""
    fake.add("server", status="exited", exit_code=137)
    executing.begin(run, PROJECT)
    found: list[FakeContainers | None] = [None, fake]
    monkeypatch.setattr(daemon, "find", lambda: found.pop(0))
    monkeypatch.setattr(bootstrap, "daemon_died", lambda: False)
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        assert is_watched(Run(run))
        if len(pauses) == 3:
            fake.refusals["list"] = "the daemon is gone"
        if len(pauses) == 5:
            del fake.refusals["list"]
            write_summary(run)

    monkeypatch.setattr("time.sleep", pause)
    monkeypatch.setattr("psutil.pid_exists", lambda _: False)
    governor.main(run, 1)
    assert len(pauses) == 5
    assert fake.get("server").is_running
    assert [event["event"] for event in Run(run).events()] == ["revived"]


def test_one_governor_is_enough(run: Path, fake: FakeContainers) -> None:
    executing.begin(run, PROJECT)
    with watching(Run(run)):
        governor.main(run, os.getpid())
