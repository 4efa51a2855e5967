"""No counter ever falls, and no share leaves 0 to 1, whatever happens and whenever one looks."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import get_args

from clock import Clock
from gpus import FakeNvml
from hypothesis import given, settings
from hypothesis import strategies as st
from plausibility import NO_SHARES, ONLY_GROW, SHARES, samples_that_grow
from prometheus_client import CollectorRegistry

from fedbench.records import ClientRound, RoundRecord
from fedbench.records.clock import Dilation
from fedbench.records.energy import Draw
from fedbench.server.registry import Census, NameTakenError, Registry, UnknownInstanceError
from fedbench.telemetry.cgroup import Cgroup
from fedbench.telemetry.client import ClientMetrics
from fedbench.telemetry.collectors import CgroupCollector, GpuCollector
from fedbench.telemetry.companions import Companions
from fedbench.telemetry.emulated_device import EmulatedDevice
from fedbench.telemetry.metrics import METRICS
from fedbench.telemetry.server import ServerMetrics
from fedbench.telemetry.work import ClientPhase
from fedbench.wire import Announcement, Ending

CLIENTS = ("alone", "first", "second")  # the latter two are on one computer
PHASES: tuple[ClientPhase, ...] = get_args(ClientPhase)
BUSY = ("training", "evaluating")
GROWING = {name for metric in ONLY_GROW for name in samples_that_grow(metric)}


class FakeCgroup:
    """A container's files, whose counts grow as the kernel's do."""

    def __init__(self, root: Path) -> None:
        self._base = root / "sys/fs/cgroup"
        self._base.mkdir(parents=True)
        self._proc = root / "proc"
        self._proc.mkdir()
        (self._base / "cpuset.cpus.effective").write_text("0-2")
        self._counts = Counter[str]()
        self.grow(0.0)
        self.cgroup = Cgroup(root)

    def grow(self, seconds: float) -> None:
        count = self._counts
        count.update(usage_usec=int(seconds * 1e6) + 1, nr_periods=2, nr_throttled=1)
        count.update(throttled_usec=int(seconds * 7e5), oom_kill=1, ticks=int(seconds * 100))
        stat = ("usage_usec", "nr_periods", "nr_throttled", "throttled_usec")
        lines = [f"{name} {count[name]}" for name in stat]
        (self._base / "cpu.stat").write_text("\n".join(lines))
        (self._base / "memory.events").write_text(f"oom_kill {count['oom_kill']}")
        cpus = [f"cpu{n} 1 0 1 1 0 0 0 {count['ticks'] // (n + 1)} 0 0\n" for n in range(3)]
        (self._proc / "stat").write_text("".join(cpus))


class Client:
    """One that does as it is told; on a computer of its own where there are no `companions`."""

    def __init__(self, name: str, folder: Path, clock: Clock, dilation: float) -> None:
        self.cgroup = FakeCgroup(folder / name)
        self.registry = CollectorRegistry()
        shares = name != "alone"
        computer = folder / "computer"
        computer.mkdir(exist_ok=True)
        self._companions = Companions(computer if shares else folder / "none", name, clock)
        device = EmulatedDevice(Dilation(dilation), Draw.of(21.7, 93.1, clients=2))
        self.metrics = ClientMetrics(
            self.registry,
            self.cgroup.cgroup,
            clock,
            device,
            self._companions if shares else None,
        )
        self.registry.register(GpuCollector(FakeNvml()))
        self._phases: list[ExitStack] = []

    def begin(self, phase: ClientPhase) -> None:
        self.end()
        stack = ExitStack()
        stack.enter_context(self.metrics.phase(phase))
        if phase in BUSY:
            stack.enter_context(self._companions.busy())
        self._phases.append(stack)

    def end(self) -> None:
        if self._phases:
            self._phases.pop().close()

    def train(self, run: str, samples: int, seconds: float) -> None:
        self.metrics.progress(
            run=run, round_number=1, epoch=1, epochs=1, samples=samples, seconds=seconds
        )

    def finish(self, run: str, samples: int, seconds: float) -> None:
        part = samples % 11 / 10
        self.metrics.epoch_finished(
            run=run,
            round_number=1,
            seconds=seconds + 1e-3,
            loss=1.0,
            accuracy=part,
            samples=samples,
            due=seconds + 0.5,
        )
        self.metrics.evaluated(
            run=run, round_number=1, seconds=seconds, loss=1.0, accuracy=1 - part
        )


class Federation:
    """All of it, on one awkward clock; remembers the most that any series ever was."""

    def __init__(self, folder: Path, dilation: float) -> None:
        self.clock = Clock()
        self.clock.now = 97531.1357  # no power of two
        self.clients = {name: Client(name, folder, self.clock, dilation) for name in CLIENTS}
        self.run = 1
        self.comers = Registry(lambda _node: None, self.clock)
        self._instances = Counter[str]()
        registry = CollectorRegistry()
        self.server = ServerMetrics(registry, self.clock, self.clock)
        self.container = FakeCgroup(folder / "server")
        registry.register(CgroupCollector(self.container.cgroup))
        registry.register(Census(self.comers))
        self._registries = {name: client.registry for name, client in self.clients.items()}
        self._registries["server"] = registry
        self._before: dict[tuple[str, str, tuple[tuple[str, str], ...]], float] = {}
        self.seen: set[str] = set()

    @property
    def run_name(self) -> str:
        return f"r{self.run}"

    def scrape(self) -> None:
        for whose, registry in self._registries.items():
            for family in registry.collect():
                for sample in family.samples:
                    self.seen.add(sample.name)
                    if sample.name in GROWING:
                        key = (whose, sample.name, tuple(sorted(sample.labels.items())))
                        assert sample.value >= self._before.get(key, 0.0), key
                        self._before[key] = sample.value
                    if sample.name in SHARES:
                        assert 0 <= sample.value <= 1, (whose, sample)

    def end(self) -> None:
        """Ends all work, and looks a last time."""
        for client in self.clients.values():
            client.end()
        self.scrape()

    def announce(self, name: str) -> None:
        self._instances[name] += 1
        with suppress(NameTakenError):
            self.comers.announce(self._announcement(name), "10.0.0.1")

    def go(self, name: str, seconds: float) -> None:
        """Goodbye, death, or a silence after which it is missed, as the seconds have it."""
        instance = self._announcement(name).instance
        if seconds < 0.3:
            self.comers.leave(name, instance)
        elif seconds < 1:
            self.comers.hung_up(name, instance)
            self.comers.miss(name, instance)
        else:
            ending = Ending(exit_code=1, killed_for_memory=False, memory_limit=None)
            with suppress(UnknownInstanceError):
                self.comers.end(name, instance, ending)
        self.comers.presence()

    def finish_round(self, seconds: float) -> None:
        client = ClientRound(client="alone", device="pc", epoch_seconds=[seconds], samples=7)
        gone = ClientRound(client="gone", device="pc", error="train: it died", missing="crashed")
        record = RoundRecord(
            round=1,
            started_at="2026-11-23T12:00:00Z",
            server_accuracy=seconds % 1,
            server_loss=0.5,
            server_epoch_seconds=0.25,
            duration_seconds=seconds,
            overhead_seconds=0.0,
            aggregate_seconds=0.0,
            clients=[client, gone],
        )
        self.server.observe(record, self.run_name, 3)

    def start_run(self) -> None:
        self.run += 1
        self.server.run_started(self.run_name, experiment="e", profile="p", model="m")

    def _announcement(self, name: str) -> Announcement:
        instance = str(self._instances[name])
        return Announcement(client=name, device="pc", instance=instance, metrics_port=9101)


Event = Callable[[Federation, str, float], None]


def _wait(all_: Federation, _: str, seconds: float) -> None:
    all_.clock.now += seconds


def _enter(phase: ClientPhase) -> Event:
    return lambda all_, name, _: all_.clients[name].begin(phase)


EVENTS: dict[str, Event] = {
    "wait": _wait,
    **{phase: _enter(phase) for phase in PHASES},
    "end": lambda all_, name, _: all_.clients[name].end(),
    "train": lambda all_, name, s: all_.clients[name].train(all_.run_name, int(s * 10) + 1, s),
    "epoch": lambda all_, name, s: all_.clients[name].finish(all_.run_name, int(s * 10) + 1, s),
    "sent": lambda all_, name, s: all_.clients[name].metrics.transferred(sent=9, seconds=s),
    "received": lambda all_, name, s: all_.clients[name].metrics.transferred(received=9, seconds=s),
    "error": lambda all_, name, _: all_.clients[name].metrics.error(),
    "cpu": lambda all_, name, s: all_.clients[name].cgroup.grow(s),
    "server's cpu": lambda all_, _, s: all_.container.grow(s),
    "start": lambda all_, _, __: all_.start_run(),
    "missing": lambda all_, _, __: all_.server.run_phase(all_.run_name, "waiting"),
    "running": lambda all_, _, __: all_.server.run_phase(all_.run_name, "running"),
    "round": lambda all_, _, s: all_.finish_round(s),
    "come": lambda all_, name, _: all_.announce(name),
    "go": lambda all_, name, s: all_.go(name, s),
}
# Steps that no binary fraction is, the smallest that the clock still sees, and those that outlast
# a client's silence.
seconds = st.one_of(
    st.sampled_from([0.1, 1 / 3, 2e-11, 31.7, 130.3, 700.9]),
    st.floats(0, 2),
    st.floats(0, 1e4),
)
step = st.tuples(st.sampled_from([*EVENTS]), st.sampled_from(CLIENTS), seconds, st.booleans())


@settings(max_examples=100, deadline=None)
@given(steps=st.lists(step, max_size=40), dilation=st.floats(1, 20))
def test_no_counter_falls_and_each_that_is_declared_was_looked_at(
    steps: list[tuple[str, str, float, bool]], dilation: float
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        federation = Federation(Path(folder), dilation)
        for event, name, seconds, looked in steps:
            EVENTS[event](federation, name, seconds)
            _wait(federation, name, seconds / 7)
            if looked:
                federation.scrape()
        for happen in EVENTS.values():  # so that none is forgotten
            happen(federation, "alone", 0.7)
        federation.end()

    assert federation.seen >= GROWING
    assert federation.seen >= SHARES


def test_a_look_in_the_middle_of_each_phase_sees_no_energy_fall(tmp_path: Path) -> None:
    """A tenth of a second at a time, for which floats are never exact."""
    federation = Federation(tmp_path, dilation=3.3)
    for number in range(1000):
        for client in federation.clients.values():
            if number % 7 == 0:
                client.begin(PHASES[number // 7 % len(PHASES)])
            federation.clock.now += 0.1 / 3
            list(client.registry.collect())
        if number % 3 == 0:
            federation.scrape()
    federation.end()


def test_ratios_that_are_no_shares_are_declared() -> None:
    assert {name for name, metric in METRICS.items() if metric.unit == "ratio"} > NO_SHARES
