from __future__ import annotations

import multiprocessing
import signal
import tempfile
import time
from contextlib import AbstractContextManager, suppress
from pathlib import Path

import pytest
from clock import Clock
from hypothesis import given, settings
from hypothesis import strategies as st

from fedbench.records import ClientRound
from fedbench.records.energy import Draw
from fedbench.records.verdict import Emulation
from fedbench.telemetry import companions
from fedbench.telemetry.collectors import PhaseClock
from fedbench.telemetry.companions import Companions, Turn, _locked
from fedbench.telemetry.emulated_device import EmulatedDevice, EnergyCollector

CLIENTS = ("a", "b", "c")
IDLE, LOAD = 40.0, 130.0


@pytest.fixture
def clock() -> Clock:
    return Clock()


def _busy_until_killed(folder: Path, started: multiprocessing.synchronize.Event) -> None:
    with Companions(folder, "other").busy():
        started.set()
        signal.pause()


def test_companions_count_while_they_are_busy_and_not_when_they_are_killed(tmp_path: Path) -> None:
    me = Companions(tmp_path, "me")
    assert me.active() == 1
    context = multiprocessing.get_context("fork")
    started = context.Event()
    other = context.Process(target=_busy_until_killed, args=(tmp_path, started))
    other.start()
    try:
        assert started.wait(10)
        with me.busy():
            assert me.active() == 2
    finally:
        other.kill()
        other.join()
    assert me.active() == 1


def test_a_client_alone_on_its_computer_needs_no_folder(tmp_path: Path, clock: Clock) -> None:
    me = Companions(tmp_path / "none", "me", clock)
    clock.now += 1
    with me.busy() as turn:
        clock.now += 4
        assert me.usage() == (4, 1)
    clock.now += 1

    assert (turn.share, me.usage().seconds) == (1, 4)


def test_a_second_in_which_two_are_busy_is_half_of_each(tmp_path: Path, clock: Clock) -> None:
    laptop, tablet = Companions(tmp_path, "laptop", clock), Companions(tmp_path, "tablet", clock)
    with laptop.busy() as first:
        clock.now += 2  # alone
        with tablet.busy() as second:
            clock.now += 4
            assert (laptop.usage(), tablet.usage()) == ((4, 2), (2, 2)), "a scrape sees it at once"
    assert (first.share, second.share) == (4 / 6, 2 / 4)
    clock.now += 8
    with tablet.busy() as third:
        clock.now += 1
    assert (third.share, laptop.usage().seconds, tablet.usage().seconds) == (1, 4, 3)


def test_a_scrape_looks_at_each_file_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[str] = []

    def locked(path: Path) -> bool:
        looked.append(path.name)
        return _locked(path)

    me, other = Companions(tmp_path, "me"), Companions(tmp_path, "other")
    phases, device = PhaseClock(time.monotonic), EmulatedDevice(watts=Draw(10.0, 40.0))
    with me.busy(), other.busy():
        monkeypatch.setattr(companions, "_locked", locked)
        *_, watts = EnergyCollector(phases, device, me).collect()
        monkeypatch.undo()
    assert sorted(looked) == ["me.busy", "other.busy"]
    assert [sample.value for sample in watts.samples] == [10, 25]


def test_work_that_fails_counts_and_ends(tmp_path: Path, clock: Clock) -> None:
    laptop, tablet = Companions(tmp_path, "laptop", clock), Companions(tmp_path, "tablet", clock)
    with tablet.busy():
        with suppress(MemoryError), laptop.busy():
            clock.now += 2
            raise MemoryError
        clock.now += 2
        assert (laptop.usage().seconds, tablet.usage().seconds) == (1, 3)


class Computer:
    """The clients of one computer, each of which begins and ends its work as it is told."""

    def __init__(self, folder: Path) -> None:
        self.clock = Clock()
        self.start = self.clock.now
        self.clients = {name: Companions(folder, name, self.clock) for name in CLIENTS}
        self.turns: dict[str, list[tuple[Turn, float]]] = {name: [] for name in CLIENTS}
        self.busy_seconds = 0.0
        self._at_work: dict[str, tuple[AbstractContextManager[Turn], float, Turn]] = {}

    def switch(self, name: str) -> None:
        """Begins the client's work, or ends it."""
        if name not in self._at_work:
            block = self.clients[name].busy()
            self._at_work[name] = (block, self.clock.now, block.__enter__())
        else:
            block, since, turn = self._at_work.pop(name)
            block.__exit__(None, None, None)
            self.turns[name].append((turn, self.clock.now - since))

    def wait(self, seconds: float) -> None:
        """Lets time pass."""
        self.busy_seconds += seconds if self._at_work else 0.0
        self.clock.now += seconds

    def end(self) -> None:
        """Ends all work."""
        for name in list(self._at_work):
            self.switch(name)

    def record(self, name: str, dilation: float) -> ClientRound:
        """As the server has it of a round."""
        turns = self.turns[name]
        return ClientRound(
            client=name,
            device="pc",
            dilation=dilation,
            epoch_seconds=[seconds for _, seconds in turns],
            busy_share_seconds=sum(turn.share * seconds for turn, seconds in turns),
        )


@settings(max_examples=50, deadline=None)
@given(
    events=st.lists(
        st.tuples(st.floats(0, 100), st.sampled_from(CLIENTS), st.booleans()), max_size=12
    ),
    dilation=st.floats(1, 20),
    silent=st.sets(st.sampled_from(CLIENTS)),
)
def test_the_clients_of_a_computer_never_draw_more_than_it_can(
    events: list[tuple[float, str, bool]], dilation: float, silent: set[str]
) -> None:
    """Whenever each begins and ends, whoever is scraped, and whoever does not answer."""
    with tempfile.TemporaryDirectory() as folder:
        computer = Computer(Path(folder))
        for seconds, name, scraped in events:
            computer.wait(seconds)
            computer.switch(name)
            if scraped:
                computer.clients[name].usage()
        computer.end()
    wall = computer.clock.now - computer.start
    elapsed = wall / dilation
    records = [computer.record(name, dilation) for name in CLIENTS if name not in silent]
    lost = [ClientRound(client=name, device="pc", error="killed") for name in silent]
    emulation = Emulation(
        dilation=dilation, watts={"pc": (IDLE, LOAD)}, computers=dict.fromkeys(CLIENTS, "pc")
    )

    drawn = emulation.with_energy([*records, *lost], wall)
    joules = sum(client.energy_joules or 0.0 for client in drawn)

    assert joules <= LOAD * elapsed * (1 + 1e-9) + 1e-6
    seconds_of_all = sum(client.usage().seconds for client in computer.clients.values())
    assert seconds_of_all == pytest.approx(computer.busy_seconds, abs=1e-6), "the live metric"
    if not silent:
        all_of_it = IDLE * elapsed + (LOAD - IDLE) * computer.busy_seconds / dilation
        assert joules == pytest.approx(all_of_it, abs=1e-6)
