from __future__ import annotations

import golden
import pytest
from energies import with_energy

from fedbench.host.report.documents import run_markdown
from fedbench.host.report.tables.run_tables import (
    device_table,
    energy_table,
    epoch_table,
    failures,
    resource_table,
    round_table,
    server_table,
)
from fedbench.host.report.tables.run_totals import Straggler, run_joules
from fedbench.records import ClientRound, EpochRecord, RoundRecord, Summary, summarise
from fedbench.records.clock import Dilation
from fedbench.records.rounds import Attempt
from fedbench.telemetry.rapl import HostEnergy


@pytest.fixture
def summary() -> Summary:
    """Two rounds; legacy-pc failed in the second."""
    return summarise(golden.GOLDEN / "runs" / "20260102-030405-digits")


def without_rounds(status: str, error: str | None) -> Summary:
    return Summary(
        run="r",
        status=status,
        experiment="digits",
        profile="heterogeneous",
        started_at="2026-01-02T03:04:05.000+00:00",
        total_seconds=0.0,
        rounds=[],
        error=error,
    )


def test_a_device_has_its_last_accuracy(summary: Summary) -> None:
    assert device_table(summary) == (
        ("client", "device", "local accuracy", "local loss", "images", "rounds"),
        [
            ("laptop", "laptop", "0.7500", "0.7500", "479", "2/2"),
            ("legacy-pc", "legacy-pc", "0.5000", "1.5000", "479", "1/2"),
            ("workstation", "workstation", "0.8750", "0.5000", "480", "2/2"),
        ],
    )


def test_a_device_has_its_median_epoch(summary: Summary) -> None:
    assert epoch_table(summary) == (
        (
            "client", "wall s / local epoch", "emulated s / local epoch", "target emulated s",
            "error", "rounds held",
        ),
        [
            ("laptop", "3.88", "3.88", "-", "-", "-"),
            ("legacy-pc", "9.50", "9.50", "-", "-", "-"),
            ("workstation", "1.50", "1.50", "-", "-", "-"),
        ],
    )  # fmt: skip


def test_a_device_has_the_sum_of_what_it_used_and_its_highest_peak(summary: Summary) -> None:
    assert resource_table(summary) == (
        (
            "client", "CPU s", "CPUs had", "throttled CPU s", "steal", "peak MiB", "sent MB",
            "received MB",
        ),
        [
            ("laptop", "7.5", "-", "10.0", "-", "476", "18.2", "27.3"),
            ("legacy-pc", "4.5", "-", "14.0", "-", "454", "9.1", "18.2"),
            ("workstation", "6.0", "-", "0.0", "-", "690", "18.2", "27.3"),
        ],
    )  # fmt: skip


def test_the_server_has_its_last_figures_and_the_median_overhead(summary: Summary) -> None:
    header = (
        "server accuracy", "server loss", "epoch wall s", "epoch emulated s", "rounds",
        "total wall s", "total emulated s", "overhead wall s",
    )  # fmt: skip
    row = ("0.5000", "1.5000", "0.50", "0.50", "2", "35.0", "35.0", "1.12")
    assert server_table(summary) == (header, [row])
    row = ("0.5000", "1.5000", "0.50", "0.20", "2", "35.0", "14.0", "1.12")
    slowed = summary.model_copy(update={"dilation": Dilation(2.5)})
    assert server_table(slowed)[1] == [row], "the overhead is in wall seconds"
    row = ("-", "-", "-", "-", "0", "0.0", "0.0", "-")
    assert server_table(without_rounds("failed", "x")) == (header, [row])


def test_what_was_not_measured_is_a_dash(summary: Summary) -> None:
    """A no-op round of the stock node: no epochs, no bytes; and a client that never answered."""
    clients = [
        ClientRound(client="a", device="laptop", samples=7, cpu_seconds=0.25),
        ClientRound(client="b", device="laptop", error="train: no answer"),
    ]
    record = RoundRecord(
        round=1,
        started_at="2026-01-02T03:04:08.000+00:00",
        server_accuracy=None,
        server_loss=None,
        server_epoch_seconds=None,
        duration_seconds=2.0,
        overhead_seconds=2.0,
        aggregate_seconds=0.0,
        clients=clients,
    )
    noop = summary.model_copy(update={"rounds": [record]})
    assert device_table(noop)[1] == [
        ("a", "laptop", "-", "-", "7", "1/1"),
        ("b", "laptop", "-", "-", "0", "0/1"),
    ]
    assert epoch_table(noop)[1] == [(name, "-", "-", "-", "-", "-") for name in "ab"]
    assert resource_table(noop)[1] == [
        ("a", "0.2", "-", "-", "-", "-", "-", "-"),
        ("b", "-", "-", "-", "-", "-", "-", "-"),
    ]
    assert round_table(noop)[1] == [
        ("1", "-", "-", "2.00", "2.00", "2.00", "1/2", "-", "-", "-", "-", "-")
    ]
    assert server_table(noop)[1] == [("-", "-", "-", "-", "1", "35.0", "35.0", "2.00")]


def test_the_report_is_the_golden_one(summary: Summary) -> None:
    golden.check(golden.GOLDEN / "report.md", run_markdown(summary))


def test_emulated_seconds_stand_beside_wall_seconds(summary: Summary) -> None:
    client = ClientRound(
        client="a",
        device="laptop",
        epoch_seconds=[5.0, 6.0],
        samples=480,
        dilation=2.5,
        target_epoch_seconds=2.0,
        emulation_error=0.1,
        not_held="+10% off its target: nothing held it back",
        epochs=[
            EpochRecord(seconds=5.0, cpu_seconds=3.0, throttled_seconds=0, steal_seconds=0.5),
            EpochRecord(seconds=6.0, cpu_seconds=4.8, throttled_seconds=0, steal_seconds=1.2),
        ],
    )
    held = client.model_copy(update={"emulation_error": 0.02, "not_held": None})
    visitor = ClientRound(client="b", device="phone", epoch_seconds=[3.0])
    records = [
        summary.rounds[0].model_copy(update={"clients": [client, visitor]}),
        summary.rounds[1].model_copy(update={"clients": [held, visitor]}),
    ]
    slowed = summary.model_copy(update={"rounds": records, "dilation": Dilation(2.5)})
    assert epoch_table(slowed)[1] == [
        ("a", "5.50", "2.20", "2.00", "+6.0%", "1/2"),
        ("b", "3.00", "3.00", "-", "-", "-"),
    ]
    had = [(row[2], row[4]) for row in resource_table(slowed)[1]]
    assert had == [("0.70", "15.0%"), ("-", "-")]
    times = [(row[3], row[4], row[5], row[-1]) for row in round_table(slowed)[1]]
    assert times == [("22.50", "9.00", "1.50", "a"), ("9.00", "3.60", "0.75", "-")]
    report = run_markdown(slowed)
    assert "slowed by 2.5: emulated seconds are wall seconds divided by that" in report
    assert report.endswith(
        "## Where the emulation did not hold\n\n"
        "- round 1: a: +10% off its target: nothing held it back\n"
    )


def test_a_failure_of_many_lines_is_one_item(summary: Summary) -> None:
    client = ClientRound(client="a", device="a", error="train: RuntimeError: no\n  memory\n\nleft")
    record = summary.rounds[0].model_copy(update={"clients": [client]})
    report = run_markdown(summary.model_copy(update={"rounds": [record]}))
    assert report.endswith("## Failures\n\n- round 1: a: train: RuntimeError: no memory left\n")


def test_a_round_says_who_was_missing_and_why(summary: Summary) -> None:
    """The column is there only where somebody was; those of earlier attempts count."""
    sound, gone, slow = (
        ClientRound(client="a", device="a"),
        ClientRound(client="b", device="b", error="train: killed", missing="out_of_memory"),
        ClientRound(client="c", device="c", error="train: no answer", missing="timed_out"),
    )
    attempt = Attempt(started_at=summary.started_at, duration_seconds=1.0, clients=[gone, slow])
    first, second = (r.model_copy(update={"clients": [sound]}) for r in summary.rounds)
    damaged = first.model_copy(update={"clients": [sound, gone], "attempts": [attempt]})
    damaged_summary = summary.model_copy(update={"rounds": [damaged, second]})

    header, rows = round_table(damaged_summary)

    column = list(header).index("missing")
    assert [row[column] for row in rows] == ["b out of memory (2 times), c timed out", "-"]
    assert rows[0][column - 1] == "1/2"
    assert failures(damaged_summary) == [
        "round 1: b: train: killed", "round 1: c: train: no answer", "round 1: b: train: killed",
    ]  # fmt: skip
    assert "missing" not in round_table(summary)[0]


def test_nobody_waits_for_an_update_that_was_begun_in_an_earlier_round(summary: Summary) -> None:
    record = summary.rounds[0]
    late = next(client for client in record.clients if client.client == "legacy-pc")
    others = [client for client in record.clients if client is not late]
    clients = [*others, late.model_copy(update={"staleness": 1})]

    straggler = Straggler.of(record.model_copy(update={"clients": clients}))

    assert straggler is not None
    assert straggler.client == "laptop"


def test_a_failed_run_says_why() -> None:
    report = run_markdown(without_rounds("failed", "the server died"))
    assert report.splitlines()[:5] == [
        "# Run r",
        "",
        "Experiment digits on profile heterogeneous: failed (the server died)",
        "",
        "Started 2026-01-02T03:04:05.000+00:00.",
    ]
    assert "## Failures" not in report


def test_energy_has_a_part_of_its_own_and_what_the_host_drew_another(summary: Summary) -> None:
    drawn = {"energy_idle_joules": 1500.0, "energy_busy_joules": 500.0}
    client = ClientRound(client="a", device="laptop", **drawn)
    record = summary.rounds[0].model_copy(update={"clients": [client]})
    known = summary.model_copy(update={"rounds": [record]})
    report = run_markdown(known, measured=HostEnergy(joules=4000, seconds=100))
    assert "## Energy\n\n| client | idle kJ | busy kJ | kJ | kJ / round |" in report
    assert "| a | 1.50 | 0.50 | 2.00 | 2.00 |" in report
    assert report.endswith(
        "## The host's own energy\n\n- the host's CPUs really drew 4.00 kJ in 100 wall s, 40.0 W, "
        "measured by their counters (RAPL); not comparable with the modelled devices\n"
    )
    assert "kJ / round" not in run_markdown(summary), "of an older version, which modelled none"


def test_a_round_names_who_held_it_up_and_what_the_others_waited(summary: Summary) -> None:
    """In the first legacy-pc works 20 s, laptop 8.5 s and workstation 3.25 s."""
    header, rows = round_table(summary)
    assert header == (
        "round", "server accuracy", "server loss", "wall s", "emulated s", "overhead wall s",
        "clients", "slowest", "times the fastest", "others waited wall s", "kJ", "not held",
    )  # fmt: skip
    assert rows == [
        (
            "1", "0.2500", "2.1250", "22.50", "22.50", "1.50", "3/3",
            "legacy-pc", "6.2", "14.12", "-", "-",
        ),
        (
            "2", "0.5000", "1.5000", "9.00", "9.00", "0.75", "2/3",
            "laptop", "2.5", "5.00", "-", "-",
        ),
    ]  # fmt: skip


def test_a_round_has_the_energy_of_its_clients(summary: Summary) -> None:
    drawn = {"energy_idle_joules": 1500.0, "energy_busy_joules": 500.0}
    clients = [ClientRound(client=name, device="laptop", **drawn) for name in "ab"]
    record = summary.rounds[0].model_copy(update={"clients": clients})
    ((*_, kilojoules, _),) = round_table(summary.model_copy(update={"rounds": [record]}))[1]
    assert kilojoules == "4.00"


def test_a_device_has_idle_and_busy_apart_and_its_mean_round(summary: Summary) -> None:
    drawn = with_energy(
        summary, [{"a": (1000, 3000), "b": (500, 0)}, {"a": (1000, 5000), "b": None}]
    )
    assert energy_table(drawn) == (
        ("client", "idle kJ", "busy kJ", "kJ", "kJ / round"),
        [
            ("a", "2.00", "8.00", "10.00", "5.00"),
            ("b", "0.50", "0.00", "0.50", "0.50"),
            ("all", "2.50", "8.00", "10.50", "5.25"),
        ],
    )


def test_energy_that_nobody_knows_is_a_dash(summary: Summary) -> None:
    """Of an older version, or of devices without watts."""
    assert run_joules(summary) is None
    assert all(row[1:] == ("-",) * 4 for row in energy_table(summary)[1])
