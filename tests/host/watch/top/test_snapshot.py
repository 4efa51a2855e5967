"""From what a real Prometheus answered (tests/golden/top/answers.json), and from single samples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from recorded import top_answers

from fedbench.host.watch.prometheus import Sample, Series
from fedbench.host.watch.top.snapshot import METRICS, RULES, snapshot
from fedbench.host.watch.top.state import Alert, GpuState, Snapshot, Traffic
from fedbench.telemetry import metrics
from fedbench.telemetry.work import CLIENT_PHASES

ROOT = Path(__file__).resolve().parents[4]


def sample(metric: str, value: float, **labels: str) -> Sample:
    name = metric if metric == "ALERTS" or ":" in metric else f"fedbench_{metric}"
    return Sample({"__name__": name, **labels}, value)


def phases(**clients: list[str]) -> list[Series]:
    """Each client's phase every two seconds, the last of them at 100 s."""
    return [
        Series({"client": client, "phase": phase}, [(at, 1.0)])
        for client, seen in clients.items()
        for at, phase in zip(range(102 - 2 * len(seen), 101, 2), seen, strict=True)
    ]


RUNNING = [
    sample("run_phase", 1, run="r", phase="running"),
    sample("run_phase", 0, run="r", phase="finished"),
    sample("round", 3, run="r"),
    sample("rounds", 6, run="r"),
    sample("round_last_seconds", 20, run="r"),
    sample("dilation", 2, run="r"),
]


def now(*facts: Sample, past: list[Series] | None = None, **options: Any) -> Snapshot:
    return snapshot([*RUNNING, *facts], past or [], [], **options)


def of(client: str, **figures: float) -> list[Sample]:
    return [sample(name, value, client=client) for name, value in figures.items()]


def test_a_recorded_federation() -> None:
    state = snapshot(*top_answers())
    assert state.run is not None
    assert (state.run.phase, state.run.round, state.run.rounds) == ("running", 5, 6)
    assert [device.client for device in state.devices] == ["laptop", "legacy-pc", "workstation"]
    assert state.missing_rules == ()
    assert {device.phase for device in state.devices} <= set(CLIENT_PHASES)
    for device in state.devices:
        assert device.epochs == 3
        assert device.speed is not None
        assert device.target_seconds is not None
        assert device.cpu_use is not None
        assert 0 < device.cpu_use < 1.5
        assert device.memory is not None
        assert device.memory_limit is not None
        assert device.memory < device.memory_limit
        assert device.throttled is not None
        assert device.joules
        assert device.sent.rate is not None
        assert len(device.phases) > 60


def test_rounds_that_are_over_say_how_long_the_others_take() -> None:
    run = now().run
    assert run is not None
    assert run.progress == pytest.approx(2 / 6)
    assert run.seconds_left == pytest.approx(4 * 20)


def test_a_run_that_is_over_has_nothing_left() -> None:
    finished = [sample("run_phase", 1, run="r", phase="finished"), *RUNNING[2:]]
    run = snapshot(finished, [], []).run
    assert run is not None
    assert run.seconds_left is None
    assert run.progress == 3 / 6  # stopped early


def a_run(run: str, phase: str) -> list[Sample]:
    known = ("waiting", "running", "finished")
    return [sample("run_phase", name == phase, run=run, phase=name) for name in known]


@pytest.mark.parametrize(
    ("phases_of", "chosen"),
    [
        ({}, None),
        ({"1": "finished", "2": "finished"}, "2"),
        ({"1": "running", "2": "finished"}, "1"),
        ({"1": "running", "2": "waiting"}, "2"),
    ],
)
def test_of_several_runs_the_newest_that_goes_on(
    phases_of: dict[str, str], chosen: str | None
) -> None:
    facts = [fact for run, phase in phases_of.items() for fact in a_run(run, phase)]
    loss = [sample("local_loss", int(run), client="a", run=run) for run in phases_of]
    state = snapshot([*facts, *loss], [], [])
    assert state.runs == tuple(phases_of)
    assert (state.run.run if state.run else None) == chosen
    assert [device.loss for device in state.devices] == ([float(chosen)] if chosen else [])


def test_another_client_in_the_place_of_one_and_another_run() -> None:
    before = phases(old=["training"] * 3, stays=["waiting"] * 3)
    facts = [
        *a_run("2", "running"),
        sample("client_phase", 1, client="new", phase="training"),
        sample("client_phase", 1, client="stays", phase="waiting"),
        sample("local_loss", 1.5, client="stays", run="1"),  # it has not begun the new one
    ]
    state = snapshot(facts, before, [])
    assert {d.client: (d.phase, d.loss) for d in state.devices} == {
        "new": ("training", None), "old": ("gone", None), "stays": ("waiting", None),
    }  # fmt: skip
    assert state.holding is not None
    assert state.holding.client.client == "new"


def test_seconds_and_speeds_are_the_devices_own() -> None:
    facts = of("a", local_epoch_last_seconds=6.0, samples_per_second=10.0, target_epoch_seconds=2.5)
    (device,) = now(*facts).devices
    assert (device.epoch_seconds, device.speed) == (3.0, 20.0)
    assert device.error == pytest.approx(0.2)


def test_a_real_device_among_emulated_ones_is_not_dilated() -> None:
    (device,) = now(*of("a", local_epoch_last_seconds=6.0, client_dilation=1.0)).devices
    assert device.epoch_seconds == 6.0
    assert device.error is None


def test_energy_is_idle_and_busy() -> None:
    facts = [
        sample("client:fedbench_power:watts", 95, client="a"),
        sample("run_energy_joules", 1000, client="a", run="r", state="idle"),
        sample("run_energy_joules", 500, client="a", run="r", state="busy"),
    ]
    (device,) = now(*facts).devices
    assert (device.watts, device.idle_joules, device.joules) == (95, 1000, 1500)


def test_traffic_has_a_direction() -> None:
    facts = [
        sample("client:fedbench_sent_bytes:rate", 5, client="a", device="pi"),
        sample("run_bytes", 90, client="a", run="r", direction="sent"),
        sample("run_bytes", 80, client="a", run="r", direction="received"),
        sample("run_bytes", 7, client="a", run="before", direction="sent"),
        sample("transfer_last_bytes", 30, client="a", direction="sent"),
        sample("transfer_last_seconds", 3, client="a", direction="sent"),
        sample("gpu_use_ratio", 0.5, client="a"),
    ]
    (device,) = now(*facts).devices
    assert device.profile == "pi"
    assert device.sent == Traffic(rate=5, bytes=90, last_bytes=30, last_seconds=3)
    assert device.received == Traffic(bytes=80)
    assert device.gpu == GpuState(use=0.5)


def test_whatever_is_asked_for_is_declared_or_recorded() -> None:
    recorded = yaml.safe_load((ROOT / "compose/prometheus/rules/recording.yml").read_text())
    names = {rule["record"] for group in recorded["groups"] for rule in group["rules"]}
    assert set(RULES) == names  # all are shown
    assert set(METRICS) - names <= metrics.METRICS.keys()


def test_a_rule_is_missing_where_nobody_evaluates_it_and_it_has_no_series() -> None:
    cpu, *others = RULES
    assert now().missing_rules == ()
    assert now(rules=[]).missing_rules == RULES
    elsewhere = sample(cpu, 0.5, client="a")  # evaluated by another program
    assert now(elsewhere, rules=[]).missing_rules == tuple(others)


def test_figures_of_another_run_are_not_this_ones() -> None:
    state = now(
        sample("local_loss", 0.5, client="a", run="r"), sample("local_loss", 9, client="b", run="q")
    )
    assert {device.client: device.loss for device in state.devices} == {"a": 0.5}


def test_what_is_not_a_number_is_not_known() -> None:
    facts = [
        sample("client:fedbench_throttled:ratio", float("nan"), client="a"),
        sample("client:fedbench_cpu_use:ratio", 0.5, client="a"),
    ]
    (device,) = now(*facts).devices
    assert (device.throttled, device.cpu_use) == (None, 0.5)


def test_a_loss_that_diverged_is_told_and_its_curve_has_it_once() -> None:
    nan = float("nan")
    points = [(float(at), value) for at, value in enumerate([2.0, 2.0, 9.0, nan, nan, nan])]
    curve = Series({"__name__": "fedbench_server_loss", "run": "r"}, points)
    facts = [sample("server_loss", nan, run="r"), sample("local_loss", nan, client="a", run="r")]
    state = snapshot([*RUNNING, *facts], [], [curve])
    assert state.run is not None
    assert str(state.run.losses) == "(2.0, 9.0, nan)"
    assert str(state.devices[0].loss) == "nan"


def test_what_is_no_finite_number_of_a_run_is_not_known() -> None:
    odd = [sample(name, float("nan"), run="r") for name in ("round", "round_last_seconds")]
    run = snapshot([*RUNNING[:1], *odd, sample("dilation", float("inf"), run="r")], [], []).run
    assert run is not None
    assert (run.round, run.seconds_left, run.dilation) == (0, None, 1.0)


def test_who_was_there_and_is_not_is_gone_and_who_never_was_is_unknown() -> None:
    past = phases(a=["training"], b=["waiting"])
    state = now(sample("client_phase", 1, client="a", phase="training"), past=past, clients=["c"])
    assert {d.client: d.phase for d in state.devices} == {"a": "training", "b": "gone", "c": "-"}


def test_the_one_with_most_left_holds_the_round_back() -> None:
    facts = [
        sample("client_phase", 1, client="done", phase="waiting"),
        sample("client_phase", 1, client="long", phase="waiting"),
        *(sample("client_phase", 1, client=c, phase="training") for c in ("quick", "slow")),
        *of("quick", local_epoch=2, local_epochs=3, local_epoch_last_seconds=2),
        *of("slow", local_epoch=2, local_epochs=3, local_epoch_last_seconds=5),
    ]
    past = phases(done=["training", "waiting", "waiting"], long=["waiting"] * 3)
    holding = now(*facts, past=past).holding
    assert holding is not None
    assert holding.client.client == "slow"
    assert holding.waiting == {"done": 2.0, "long": None}


@pytest.mark.parametrize("phase", ["training", "waiting"])
def test_nobody_holds_the_round_back_while_all_do_the_same(phase: str) -> None:
    facts = [sample("client_phase", 1, client=c, phase=phase) for c in ("a", "b")]
    assert now(*facts).holding is None


def test_the_curve_has_one_value_per_round() -> None:
    points = [(float(at), value) for at, value in enumerate([0.1, 0.1, 0.2, 0.2, 0.4])]
    curve = Series({"__name__": "fedbench_server_accuracy", "run": "r"}, points)
    other = Series({"__name__": "fedbench_server_accuracy", "run": "q"}, [(0.0, 0.9)])
    run = snapshot(RUNNING, [], [curve, other]).run
    assert run is not None
    assert run.accuracies == (0.1, 0.2, 0.4)


def test_only_alerts_that_fire_are_told() -> None:
    alerts = [
        sample("ALERTS", 1, alertname="NoProgress", alertstate="firing"),
        sample("ALERTS", 1, alertname="Slow", alertstate="firing", client="a"),
        sample("ALERTS", 1, alertname="Full", alertstate="pending", client="a"),
    ]
    assert now(*alerts).alerts == (Alert("NoProgress"), Alert("Slow", "a"))
    assert [str(alert) for alert in now(*alerts).alerts] == ["NoProgress", "Slow (a)"]
    assert now(*alerts).devices == ()
