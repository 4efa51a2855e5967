from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from clock import Clock
from prometheus_client import CollectorRegistry, generate_latest

from fedbench.records import ClientRound, RoundParts, RoundRecord
from fedbench.records.clock import Dilation
from fedbench.records.energy import Draw
from fedbench.records.rounds import EpochRecord
from fedbench.telemetry.cgroup import Cgroup
from fedbench.telemetry.client import ClientMetrics
from fedbench.telemetry.companions import Companions
from fedbench.telemetry.emulated_device import EmulatedDevice
from fedbench.telemetry.server import ServerMetrics

CGROUP = {
    "cpu.max": "150000 100000",
    "cpu.stat": "usage_usec 2500000\nnr_periods 40\nnr_throttled 10\nthrottled_usec 500000",
    "cpuset.cpus.effective": "0-3",
    "memory.max": "1073741824",
    "memory.current": "400",
    "memory.peak": "900",
    "memory.stat": "inactive_file 100",
    "memory.events": "oom_kill 1",
}
RECORD = RoundRecord(
    round=2,
    started_at="2026-11-23T12:00:00Z",
    server_accuracy=0.75,
    server_loss=0.5,
    server_epoch_seconds=0.25,
    duration_seconds=9.0,
    overhead_seconds=1.5,
    parts=RoundParts(send=0.5, receive=0.25, serialise=0.125, aggregate=0.0625, wait=0.5625),
    aggregate_seconds=0.125,
    clients=[
        ClientRound(
            client="laptop",
            device="laptop",
            epoch_seconds=[3.0, 4.0],
            epochs=[
                EpochRecord(
                    seconds=seconds,
                    cpu_seconds=1.0,
                    throttled_seconds=0.0,
                    steal_seconds=0.0,
                    due_seconds=3.5,
                )
                for seconds in (3.0, 4.0)
            ],
            samples=600,
            bytes_sent=9000,
            bytes_received=8000,
            dilation=2.0,
            target_epoch_seconds=1.5,
            emulation_error=0.125,
            not_held="too busy",
            energy_idle_joules=30.0,
            energy_busy_joules=70.0,
        ),
        ClientRound(
            client="pc", device="legacy-pc", error="killed", missing="out_of_memory", dilation=2.0
        ),
        ClientRound(
            client="nas", device="n100-mini-pc", error="no answer", missing="timed_out", late=True
        ),
    ],
)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def client(registry: CollectorRegistry, clock: Clock, tmp_path: Path) -> ClientMetrics:
    base = tmp_path / "sys/fs/cgroup"
    base.mkdir(parents=True)
    for name, text in CGROUP.items():
        (base / name).write_text(text)
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/stat").write_text("cpu0 1 0 1 1 0 0 0 200 0 0\ncpu1 1 0 1 1 0 0 0 400 0 0\n")
    device = EmulatedDevice(dilation=Dilation(2.0), watts=Draw(10.0, 40.0))
    return ClientMetrics(registry, Cgroup(tmp_path), clock, device)


@pytest.fixture
def server(registry: CollectorRegistry, clock: Clock) -> ServerMetrics:
    return ServerMetrics(registry, clock, lambda: 1e9)


def samples(registry: CollectorRegistry) -> list[str]:
    """The exposition text without comments, histogram buckets and zeros."""
    lines = generate_latest(registry).decode().splitlines()
    return [line for line in lines if not re.match(r"#|.*_bucket|.* 0\.0$", line)]


def one_epoch(client: ClientMetrics) -> None:
    client.connected(True)
    client.partition(600)
    client.progress(run="r1", round_number=2, epoch=1, epochs=3, samples=64, seconds=0.5)
    client.progress(run="r1", round_number=2, epoch=1, epochs=3, samples=600, seconds=4.0)
    client.epoch_finished(
        run="r1", round_number=2, seconds=5.0, loss=0.5, accuracy=0.875, samples=600, due=2.5
    )
    client.evaluated(run="r1", round_number=2, seconds=0.25, loss=1.5, accuracy=0.25)
    client.transferred(received=2000, seconds=0.5, model=True)
    client.transferred(sent=1000, seconds=0.25, model=True)
    client.transferred(received=20, seconds=0.125)  # as the message of an evaluation
    client.error()


def test_a_client_says_what_it_did(client: ClientMetrics, registry: CollectorRegistry) -> None:
    one_epoch(client)

    assert samples(registry) == [
        "fedbench_client_connected 1.0",
        "fedbench_client_dilation 2.0",
        "fedbench_cpu_seconds_total 2.5",
        "fedbench_cpu_throttled_seconds_total 0.5",
        "fedbench_cpu_throttled_periods_total 10.0",
        "fedbench_cpu_periods_total 40.0",
        "fedbench_cpu_steal_seconds_total 3.0",
        "fedbench_usable_cpus 1.5",
        "fedbench_memory_bytes 300.0",
        "fedbench_memory_peak_bytes 900.0",
        "fedbench_memory_limit_bytes 1.073741824e+09",
        "fedbench_out_of_memory_kills_total 1.0",
        'fedbench_client_round{run="r1"} 2.0',
        'fedbench_local_epoch{run="r1"} 1.0',
        'fedbench_local_epochs{run="r1"} 3.0',
        'fedbench_local_epoch_last_seconds{run="r1"} 5.0',
        'fedbench_samples_per_second{run="r1"} 120.0',
        'fedbench_local_loss{run="r1"} 0.5',
        'fedbench_local_accuracy{run="r1"} 0.875',
        'fedbench_global_model_loss{run="r1"} 1.5',
        'fedbench_global_model_accuracy{run="r1"} 0.25',
        'fedbench_evaluation_last_seconds{run="r1"} 0.25',
        'fedbench_emulated_samples_per_second{run="r1"} 240.0',
        'fedbench_target_samples_per_second{run="r1"} 480.0',
        'fedbench_speed_error_ratio{run="r1"} -0.5',
        "fedbench_local_epoch_seconds_count 1.0",
        "fedbench_local_epoch_seconds_sum 5.0",
        "fedbench_trained_samples_total 600.0",
        "fedbench_partition_samples 600.0",
        "fedbench_sent_bytes_total 1000.0",
        "fedbench_received_bytes_total 2020.0",
        'fedbench_transfer_seconds_count{direction="received"} 2.0',
        'fedbench_transfer_seconds_sum{direction="received"} 0.625',
        'fedbench_transfer_seconds_count{direction="sent"} 1.0',
        'fedbench_transfer_seconds_sum{direction="sent"} 0.25',
        'fedbench_transfer_last_seconds{direction="received"} 0.5',
        'fedbench_transfer_last_seconds{direction="sent"} 0.25',
        'fedbench_transfer_last_bytes{direction="received"} 2000.0',
        'fedbench_transfer_last_bytes{direction="sent"} 1000.0',
        "fedbench_client_errors_total 1.0",
        'fedbench_client_phase{phase="waiting"} 1.0',
        'fedbench_device_watts{state="idle"} 10.0',
        'fedbench_device_watts{state="busy"} 40.0',
    ]


def test_epochs_fall_into_buckets(client: ClientMetrics, registry: CollectorRegistry) -> None:
    one_epoch(client)

    bucket = "fedbench_local_epoch_seconds_bucket"
    assert registry.get_sample_value(bucket, {"le": "2.0"}) == 0
    assert registry.get_sample_value(bucket, {"le": "5.0"}) == 1


def test_a_server_says_how_the_run_goes(server: ServerMetrics, registry: CollectorRegistry) -> None:
    server.clients_connected(2)
    server.run_started("r1", experiment="digits", profile="pair", model="cnn")
    server.run_phase("r1", "running")
    server.round_started("r1", 2, 5)
    server.observe(RECORD, "r1", 5)

    assert samples(registry) == [
        'fedbench_run_info{experiment="digits",model="cnn",profile="pair",run="r1"} 1.0',
        'fedbench_run_phase{phase="running",run="r1"} 1.0',
        'fedbench_run_start_timestamp_seconds{run="r1"} 1e+09',
        'fedbench_progress_timestamp_seconds{run="r1"} 1e+09',
        'fedbench_round{run="r1"} 2.0',
        'fedbench_rounds{run="r1"} 5.0',
        'fedbench_round_recorded{run="r1"} 2.0',
        'fedbench_round_last_seconds{run="r1"} 9.0',
        'fedbench_round_overhead_seconds{run="r1"} 1.5',
        'fedbench_round_part_seconds{part="send",run="r1"} 0.5',
        'fedbench_round_part_seconds{part="receive",run="r1"} 0.25',
        'fedbench_round_part_seconds{part="serialise",run="r1"} 0.125',
        'fedbench_round_part_seconds{part="aggregate",run="r1"} 0.0625',
        'fedbench_round_part_seconds{part="wait",run="r1"} 0.5625',
        'fedbench_aggregate_seconds{run="r1"} 0.125',
        'fedbench_server_epoch_seconds{run="r1"} 0.25',
        'fedbench_server_accuracy{run="r1"} 0.75',
        'fedbench_server_loss{run="r1"} 0.5',
        'fedbench_clients_wanted{run="r1"} 3.0',
        'fedbench_clients_answered{run="r1"} 1.0',
        'fedbench_clients_failed{run="r1"} 1.0',
        'fedbench_clients_late{run="r1"} 1.0',
        'fedbench_dilation{run="r1"} 2.0',
        'fedbench_run_emulated_seconds{run="r1"} 4.5',
        'fedbench_emulated_epoch_seconds{client="laptop",run="r1"} 1.75',
        'fedbench_target_epoch_seconds{client="laptop",run="r1"} 1.5',
        'fedbench_emulation_error_ratio{client="laptop",run="r1"} 0.125',
        # fedbench_emulation_held is 0, which samples() leaves out.
        'fedbench_round_energy_joules{client="laptop",run="r1"} 100.0',
        'fedbench_run_energy_joules{client="laptop",run="r1",state="idle"} 30.0',
        'fedbench_run_energy_joules{client="laptop",run="r1",state="busy"} 70.0',
        'fedbench_run_bytes{client="laptop",direction="sent",run="r1"} 9000.0',
        'fedbench_run_bytes{client="laptop",direction="received",run="r1"} 8000.0',
        'fedbench_run_samples{client="laptop",run="r1"} 1200.0',
        # Of 0.5 wall seconds by which the second epoch was late; the first was early.
        'fedbench_run_late_seconds{client="laptop",run="r1"} 0.25',
        'fedbench_round_seconds_count{run="r1"} 1.0',
        'fedbench_round_seconds_sum{run="r1"} 9.0',
        "fedbench_clients_connected 2.0",
        'fedbench_client_missing_total{client="pc",reason="out_of_memory"} 1.0',
        'fedbench_client_missing_total{client="nas",reason="timed_out"} 1.0',
    ]


def test_promtool_finds_nothing_wrong(
    promtool: list[str], client: ClientMetrics, server: ServerMetrics, registry: CollectorRegistry
) -> None:
    one_epoch(client)
    server.clients_connected(2)
    server.run_started("r1", experiment="digits", profile="pair", model="cnn")
    server.round_started("r1", 2, 5)
    server.observe(RECORD, "r1", 5)

    done = subprocess.run(
        [*promtool, "check", "metrics"],
        input=generate_latest(registry),
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert (done.returncode, done.stdout) == (0, b"")


def test_without_an_evaluation_there_is_no_accuracy(
    server: ServerMetrics, registry: CollectorRegistry
) -> None:
    nothing = {"server_accuracy": None, "server_loss": None, "server_epoch_seconds": None}
    server.observe(RECORD.model_copy(update=nothing), "r1", 5)

    text = "\n".join(samples(registry))
    assert "fedbench_round{" in text
    assert "fedbench_server_" not in text


def test_a_client_without_figures_in_a_round_keeps_none_of_the_round_before(
    server: ServerMetrics, registry: CollectorRegistry
) -> None:
    laptop, *others = RECORD.clients
    server.observe(RECORD, "r1", 5)
    assert 'client="laptop"' in generate_latest(registry).decode()
    failed = ClientRound(client="laptop", device="laptop", error="killed")
    workstation = laptop.model_copy(update={"client": "workstation"})
    server.observe(RECORD.model_copy(update={"clients": [failed, workstation, *others]}), "r1", 5)

    text = generate_latest(registry).decode()
    of_round = ("emulated_epoch_seconds", "target_epoch_seconds", "emulation_error_ratio",
                "emulation_held", "round_energy_joules")  # fmt: skip
    for name in of_round:
        assert f'fedbench_{name}{{client="workstation",run="r1"}}' in text
        assert f'fedbench_{name}{{client="laptop"' not in text


@pytest.mark.parametrize(
    ("name", "labels", "of_a_round"),
    [
        ("energy_joules", {"state": "idle"}, 30),
        ("energy_joules", {"state": "busy"}, 70),
        ("bytes", {"direction": "sent"}, 9000),
        ("bytes", {"direction": "received"}, 8000),
        ("samples", {}, 1200),
        ("late_seconds", {}, 0.25),
    ],
)
def test_a_run_adds_up_its_rounds_those_of_a_client_that_left_included(
    server: ServerMetrics,
    registry: CollectorRegistry,
    name: str,
    labels: dict[str, str],
    of_a_round: float,
) -> None:
    def of(client: str, run: str) -> float | None:
        whose = {"run": run, "client": client}
        return registry.get_sample_value(f"fedbench_run_{name}", whose | labels)

    for _ in range(2):
        server.observe(RECORD, "r1", 5)
    server.observe(RECORD.model_copy(update={"clients": RECORD.clients[1:]}), "r1", 5)
    assert (of("laptop", "r1"), of("pc", "r1")) == (2 * of_a_round, None)

    server.observe(RECORD, "r2", 5)
    assert (of("laptop", "r1"), of("laptop", "r2")) == (None, of_a_round)


def test_a_run_that_goes_on_starts_anew(registry: CollectorRegistry, clock: Clock) -> None:
    server = ServerMetrics(registry, now=clock)
    for _ in range(2):
        clock.now += 60
        server.run_started("r1", experiment="digits", profile="pair", model="cnn")
        started = registry.get_sample_value("fedbench_run_start_timestamp_seconds", {"run": "r1"})
        assert started == clock.now


@pytest.mark.parametrize("parts", [None, RoundParts(aggregate=0.0625)])
def test_a_part_that_is_not_known_is_no_number(
    server: ServerMetrics, registry: CollectorRegistry, parts: RoundParts | None
) -> None:
    server.observe(RECORD, "r1", 5)
    server.observe(RECORD.model_copy(update={"parts": parts}), "r1", 5)

    text = "\n".join(samples(registry))
    for part in ("send", "receive", "serialise", "wait"):
        assert f'fedbench_round_part_seconds{{part="{part}",run="r1"}} NaN' in text
    assert ('part="aggregate",run="r1"} 0.0625' in text) == (parts is not None)


def test_a_new_run_drops_the_series_of_the_last(
    client: ClientMetrics, server: ServerMetrics, registry: CollectorRegistry
) -> None:
    one_epoch(client)
    server.run_phase("r1", "finished")
    server.observe(RECORD, "r1", 5)

    client.progress(run="r2", round_number=1, epoch=1, epochs=1, samples=1, seconds=1.0)
    server.run_phase("r2", "waiting")

    text = generate_latest(registry).decode()
    assert 'run="r1"' not in text
    assert 'fedbench_client_round{run="r2"} 1.0' in text
    assert 'fedbench_run_phase{phase="waiting",run="r2"} 1.0' in text


def test_the_first_batch_of_a_run_may_be_late(
    client: ClientMetrics, registry: CollectorRegistry
) -> None:
    one_epoch(client)
    client.late("r2", 0.25)
    client.progress(run="r2", round_number=1, epoch=1, epochs=1, samples=1, seconds=1.0)

    assert registry.get_sample_value("fedbench_pace_late_seconds", {"run": "r2"}) == 0.25


def test_samples_count_once_however_they_are_told(
    client: ClientMetrics, registry: CollectorRegistry
) -> None:
    def total() -> float | None:
        return registry.get_sample_value("fedbench_trained_samples_total")

    client.epoch_finished(run="r", round_number=1, seconds=1, loss=1, accuracy=0, samples=10)
    assert total() == 10
    client.progress(run="r", round_number=1, epoch=2, epochs=2, samples=8, seconds=0.0)
    assert total() == 18
    client.progress(run="r", round_number=2, epoch=1, epochs=2, samples=4, seconds=1.0)
    assert total() == 22  # the epoch before was broken off after its 8 samples


def phase_seconds(registry: CollectorRegistry, phase: str) -> float | None:
    return registry.get_sample_value("fedbench_client_phase_seconds_total", {"phase": phase})


def test_phases_share_the_time_among_them(
    client: ClientMetrics, registry: CollectorRegistry, clock: Clock
) -> None:
    clock.now += 1
    with client.phase("receiving"):
        clock.now += 2
        with client.phase("training"):
            clock.now += 4
            # A scrape in the middle of an epoch sees the seconds so far.
            assert phase_seconds(registry, "training") == 4
            assert registry.get_sample_value("fedbench_client_phase", {"phase": "training"}) == 1
            assert registry.get_sample_value("fedbench_client_phase", {"phase": "receiving"}) == 0
            clock.now += 8
        clock.now += 16

    assert phase_seconds(registry, "waiting") == 1
    assert phase_seconds(registry, "receiving") == 18
    assert phase_seconds(registry, "training") == 12
    assert registry.get_sample_value("fedbench_client_phase", {"phase": "waiting"}) == 1


def test_a_client_says_how_it_keeps_its_devices_pace(
    client: ClientMetrics, clock: Clock, tmp_path: Path
) -> None:
    assert client.pacing() is None, "it never had to"
    clock.now += 2
    with client.phase("training"):
        clock.now += 6
        client.late("r1", 0.25)
        said = client.pacing()
    assert said is not None
    assert (said.wall, said.training, said.late) == (8, 6, 0.25)
    assert said.cpu == Cgroup(tmp_path).cpu().seconds > 0
    client.late("r1", -1.0)
    ahead = client.pacing()
    assert ahead is not None
    assert ahead.late == 0


def joules(registry: CollectorRegistry, state: str) -> float | None:
    return registry.get_sample_value("fedbench_energy_joules_total", {"state": state})


def test_energy_is_of_the_emulated_device_in_its_own_seconds(
    client: ClientMetrics, registry: CollectorRegistry, clock: Clock
) -> None:
    clock.now += 6
    for phase in ("training", "evaluating"):
        with client.phase(phase):
            clock.now += 4

    # At a dilation of 2: 3 s at 10 W, 4 s at 40 W.
    assert (joules(registry, "idle"), joules(registry, "busy")) == (30, 160)


def test_the_energy_of_a_computer_is_divided_among_its_busy_clients(
    registry: CollectorRegistry, clock: Clock, tmp_path: Path
) -> None:
    mine, other = (Companions(tmp_path, name, clock) for name in ("mine", "other"))
    device = EmulatedDevice(dilation=Dilation(2.0), watts=Draw.of(10, 40, clients=2))
    client = ClientMetrics(registry, Cgroup(), clock, device, mine)
    clock.now += 6
    with client.phase("training"), mine.busy():
        clock.now += 4
        with other.busy():
            clock.now += 8
            # At a dilation of 2: 3 s and 6 s at 5 W, and of the latter 4 s of its own at 30 W more.
            assert (joules(registry, "idle"), joules(registry, "busy")) == (15, 30 + 120)
            assert registry.get_sample_value("fedbench_device_watts", {"state": "busy"}) == 20


def test_a_real_device_has_neither_a_target_nor_modelled_energy(clock: Clock) -> None:
    registry = CollectorRegistry()
    ClientMetrics(registry, Cgroup(), clock).epoch_finished(
        run="r", round_number=1, seconds=1, loss=1, accuracy=0, samples=10
    )

    text = generate_latest(registry).decode()
    assert "fedbench_client_dilation 1.0" in text
    assert not re.search(r"^fedbench_(emulated|target|speed_error|energy|device)", text, re.M)


def waited(registry: CollectorRegistry) -> float | None:
    return registry.get_sample_value("fedbench_waited_for_clients_seconds_total")


def test_the_wait_for_clients_ends_with_the_first_round(
    server: ServerMetrics, registry: CollectorRegistry, clock: Clock
) -> None:
    clock.now += 1
    server.run_phase("r1", "waiting")
    clock.now += 2
    assert waited(registry) == 2
    server.run_phase("r1", "waiting")  # it says so now and then
    clock.now += 4
    server.run_phase("r1", "running")
    clock.now += 8

    assert waited(registry) == 6


def test_a_phase_ends_with_an_exception(client: ClientMetrics, registry: CollectorRegistry) -> None:
    with pytest.raises(RuntimeError, match="out of memory"), client.phase("training"):
        raise RuntimeError("out of memory")

    assert registry.get_sample_value("fedbench_client_phase", {"phase": "waiting"}) == 1


def families(registry: CollectorRegistry) -> Iterator[tuple[str, str, str]]:
    return ((family.name, family.type, family.documentation) for family in registry.collect())


def test_names_follow_prometheus_practice(
    client: ClientMetrics, server: ServerMetrics, registry: CollectorRegistry
) -> None:
    for name, kind, documentation in families(registry):
        assert re.fullmatch(r"fedbench(_[a-z]+)+", name)
        assert documentation.endswith(".")
        if kind == "histogram":
            assert name.endswith("_seconds")
        if re.match("(cpu )?(duration|time|memory|most memory|bytes)", documentation.lower()):
            assert re.search("_(seconds|bytes)$", name), f"{name}: {documentation}"
        assert not re.search("_(ms|milliseconds|minutes|mb|kb|percent)$", name)


def test_labels_are_few_and_none_grows_with_rounds(
    client: ClientMetrics, server: ServerMetrics, registry: CollectorRegistry
) -> None:
    def series(count: Callable[[], None]) -> set[tuple[str, tuple[tuple[str, str], ...]]]:
        count()
        return {
            (sample.name, tuple(sorted(sample.labels.items())))
            for family in registry.collect()
            for sample in family.samples
        }

    def rounds(first: int, last: int) -> Callable[[], None]:
        def go() -> None:
            for number in range(first, last):
                one_epoch(client)
                server.run_phase("r1", "running")
                server.observe(RECORD.model_copy(update={"round": number}), "r1", 50)

        return go

    after_one = series(rounds(1, 2))
    after_fifty = series(rounds(2, 51))

    assert after_one == after_fifty
    assert {label for _, labels in after_one for label, _ in labels} == {
        "client",
        "direction",
        "le",
        "part",
        "phase",
        "reason",
        "run",
        "state",
    }
