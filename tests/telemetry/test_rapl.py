from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedbench.telemetry import rapl
from fedbench.telemetry.rapl import Counter, HostEnergy, HostEnergyMeter

RANGE = 262_143_328_850


@pytest.fixture
def powercap(tmp_path: Path) -> Path:
    """A host of two packages, one with its cores apart, and the platform around them."""
    folder = tmp_path / "powercap"
    domain(folder, "intel-rapl:0", "package-0", 1_000_000)
    domain(folder, "intel-rapl:0:0", "core", 5_000_000)
    domain(folder, "intel-rapl:1", "package-1", 2_000_000)
    domain(folder, "intel-rapl:2", "psys", 9_000_000)
    return folder


def domain(powercap: Path, folder: str, name: str, microjoules: int) -> Path:
    path = powercap / folder
    path.mkdir(parents=True, exist_ok=True)
    (path / "name").write_text(f"{name}\n")
    (path / "max_energy_range_uj").write_text(f"{RANGE}\n")
    (path / "energy_uj").write_text(f"{microjoules}\n")
    return path


def count(powercap: Path, **microjoules: int) -> None:
    for number, value in enumerate(microjoules.values()):
        (powercap / f"intel-rapl:{number}" / "energy_uj").write_text(f"{value}\n")


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_the_packages_are_added_up_and_no_part_of_them_twice(
    powercap: Path, tmp_path: Path
) -> None:
    clock = Clock()
    meter = HostEnergyMeter(tmp_path, powercap, clock)
    clock.now += 4
    count(powercap, first=41_000_000, second=22_000_000)
    (powercap / "intel-rapl:2" / "energy_uj").write_text("900000000\n")
    meter.tick()
    assert rapl.read(tmp_path) == HostEnergy(joules=60, seconds=4)
    clock.now += 4
    count(powercap, first=51_000_000, second=22_000_000)
    meter.tick()
    assert rapl.read(tmp_path) == HostEnergy(joules=70, seconds=8)


def test_a_run_that_goes_on_is_added_to_what_was_measured(powercap: Path, tmp_path: Path) -> None:
    """What the host drew in between is not the run's."""
    clock = Clock()
    for since in (1_000_000, 500_000_000):
        count(powercap, first=since, second=0)
        meter = HostEnergyMeter(tmp_path, powercap, clock)
        clock.now += 2
        count(powercap, first=since + 3_000_000, second=0)
        meter.tick()
    assert rapl.read(tmp_path) == HostEnergy(joules=6, seconds=4)


@given(start=st.integers(0, RANGE - 1), drawn=st.integers(0, RANGE - 1))
def test_a_counter_begins_again_beyond_its_range(
    tmp_path_factory: pytest.TempPathFactory, start: int, drawn: int
) -> None:
    path = domain(tmp_path_factory.mktemp("powercap"), "intel-rapl:0", "package-0", start)
    counter = Counter(path)
    (path / "energy_uj").write_text(f"{(start + drawn) % RANGE}\n")
    assert counter.drawn() == pytest.approx(drawn / 1e6)


def test_what_must_not_be_read_leaves_no_figure(
    powercap: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_text = Path.read_text

    def refuse(path: Path, *args: str) -> str:
        if path.name == "energy_uj":
            raise PermissionError(13, "Permission denied", str(path))
        return read_text(path, *args)

    monkeypatch.setattr(Path, "read_text", refuse)
    HostEnergyMeter(tmp_path, powercap).tick()
    assert rapl.read(tmp_path) is None
    assert rapl.described(None) == []


def test_a_machine_without_counters_leaves_no_figure(tmp_path: Path) -> None:
    HostEnergyMeter(tmp_path, tmp_path / "powercap").tick()
    assert rapl.read(tmp_path) is None


def test_it_is_told_with_its_power_and_what_it_is_not() -> None:
    assert rapl.described(HostEnergy(joules=6000, seconds=200)) == [
        "the host's CPUs really drew 6.00 kJ in 200 wall s, 30.0 W, measured by their counters "
        "(RAPL); not comparable with the modelled devices"
    ]


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", '{"joules": "many"}', '{"joules": -1}', '{"seconds": NaN}', "[" * 10**5],
)
def test_what_is_damaged_is_left_out_and_told(
    content: str, powercap: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / rapl.FILE).write_text(content)
    assert rapl.read(tmp_path) is None
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith(f"{tmp_path / rapl.FILE} is damaged: ")
    clock = Clock()
    meter = HostEnergyMeter(tmp_path, powercap, clock)
    clock.now += 4
    count(powercap, first=41_000_000, second=2_000_000)
    meter.tick()
    assert rapl.read(tmp_path) == HostEnergy(joules=40, seconds=4), "it is measured anew"


def test_a_counter_that_is_no_number_is_left_out(powercap: Path, tmp_path: Path) -> None:
    (powercap / "intel-rapl:0" / "energy_uj").write_text("\n")
    meter = HostEnergyMeter(tmp_path, powercap)
    count(powercap, first=0, second=22_000_000)
    meter.tick()
    measured = rapl.read(tmp_path)
    assert measured is not None
    assert measured.joules == 20
