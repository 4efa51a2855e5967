from __future__ import annotations

from itertools import chain

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from fedbench.errors import HostError
from fedbench.host.plan.shares import MARGIN, Demand, Solution, period_seconds, solve


@st.composite
def hosts(draw: st.DrawFn) -> dict[int, float]:
    """Samples/s by threads; more threads are never slower, nor cheaper per thread."""
    speed = draw(st.floats(10, 5000))
    curve = {1: speed}
    for threads in (2, 4, 8)[: draw(st.integers(0, 3))]:
        speed *= draw(st.floats(1.0, 2.0))
        curve[threads] = speed
    return curve


@st.composite
def federations(draw: st.DrawFn) -> list[Demand]:
    host = draw(hosts())
    demands = []
    for number in range(draw(st.integers(1, 12))):
        single = draw(st.floats(1, 20_000))
        together = single * draw(st.floats(1, 3))
        demands.append(Demand(f"device-{number}", single, together, host))
    return demands


CPUS = st.integers(1, 128)


def used(solution: Solution) -> float:
    return sum(part.quota for part in solution.parts)


@given(federations(), CPUS)
def test_never_more_than_the_host(demands: list[Demand], cpus: int) -> None:
    solution = solve(demands, cpus)
    assert used(solution) <= cpus + 1e-9
    cores = list(chain.from_iterable(part.cores or () for part in solution.parts))
    assert len(set(cores)) == len(cores) <= cpus
    assert all(core < cpus for core in cores)


@given(federations(), CPUS)
def test_every_device_is_fast_enough_with_its_part(demands: list[Demand], cpus: int) -> None:
    solution = solve(demands, cpus)
    for demand, part in zip(demands, solution.parts, strict=True):
        of_a_core = demand.host[part.threads] / part.threads
        assert part.need * of_a_core == pytest.approx(demand.together / solution.dilation)
        assert part.quota == pytest.approx(part.need * MARGIN)
        assert demand.host[part.threads] >= demand.single / solution.dilation


@given(federations(), CPUS)
def test_cores_of_ones_own_wherever_there_are_enough(demands: list[Demand], cpus: int) -> None:
    solution = solve(demands, cpus)
    assert len({part.cores is None for part in solution.parts}) == 1
    if solution.parts[0].cores is None:
        assert sum(max(part.threads, part.quota) for part in solution.parts) > cpus - len(demands)
    for part in solution.parts:
        assert part.cores is None or len(part.cores) >= max(part.threads, part.quota) - 1e-6


@given(federations(), CPUS)
def test_a_faster_device_never_gets_less(demands: list[Demand], cpus: int) -> None:
    solution = solve(demands, cpus)
    reached = {
        demand.together: part.need * demand.host[part.threads] / part.threads
        for demand, part in zip(demands, solution.parts, strict=True)
    }
    assert list(dict(sorted(reached.items())).values()) == sorted(reached.values())


@given(federations(), CPUS)
def test_the_dilation_is_minimal(demands: list[Demand], cpus: int) -> None:
    dilation = solve(demands, cpus).dilation
    assume(dilation > 1.02)
    with pytest.raises(HostError, match="is too small for this host"):
        solve(demands, cpus, dilation - 0.011)


@given(federations(), CPUS, st.floats(1, 10))
def test_a_dilation_of_ones_own_is_kept(demands: list[Demand], cpus: int, more: float) -> None:
    own = solve(demands, cpus).dilation * more
    solution = solve(demands, cpus, own)
    assert solution.dilation == own
    assert used(solution) <= cpus + 1e-9


def test_the_machines_of_table_2_on_two_cores() -> None:
    host = {1: 640.0}
    seconds = {"workstation": 211, "laptop": 33, "legacy-pc": 225}
    demands = [Demand(name, 50_000 / s, 50_000 / s, host) for name, s in seconds.items()]
    solution = solve(demands, 2)
    # The laptop sets it: one thread has to do with a core, less the margin.
    assert solution.dilation == pytest.approx(50_000 / 33 / 640 * MARGIN, abs=0.01)
    assert [part.threads for part in solution.parts] == [1, 1, 1]
    assert solution.parts[1].quota == pytest.approx(1.0, abs=0.01)
    assert solution.parts[0].cores is None


def test_a_large_host_gives_threads_and_cores_and_no_dilation() -> None:
    host = {1: 640.0, 2: 1200.0, 4: 2000.0}
    demands = [Demand("laptop", 1515, 1515, host), Demand("legacy-pc", 222, 291, host)]
    solution = solve(demands, 64)
    assert solution.dilation == 1.0
    assert [part.threads for part in solution.parts] == [4, 1]
    assert [part.cores for part in solution.parts] == [(0, 1, 2, 3), (4,)]


@pytest.mark.parametrize(
    ("quota", "step", "period"),
    [(1.0, 0.05, 0.1), (0.5, 0.05, 0.1), (0.17, 0.05, 0.3), (0.01, 0.05, 1.0)],
)
def test_a_period_holds_a_step_where_it_may(quota: float, step: float, period: float) -> None:
    assert period_seconds(quota, step) == pytest.approx(period)
