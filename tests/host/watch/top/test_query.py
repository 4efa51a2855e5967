"""Questions to a server that answers as Prometheus did."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from recorded import RecordedPrometheus, serving

from fedbench.errors import HostError, RunError
from fedbench.host.watch.prometheus import Prometheus
from fedbench.host.watch.top.query import ask, look

RUN = "20261125-124422-digits"


@pytest.fixture
def recorded() -> Iterator[RecordedPrometheus]:
    with serving() as server:
        yield server


def test_all_is_had_in_four_requests(recorded: RecordedPrometheus) -> None:
    state = ask(Prometheus(recorded.url))
    assert len(recorded.asked) == 4
    assert state.runs == (RUN,)


def test_a_prometheus_of_something_else(recorded: RecordedPrometheus) -> None:
    recorded.empty = True
    with pytest.raises(HostError, match="has no figures of a federation"):
        look(Prometheus(recorded.url))


def test_a_run_that_is_not_there(recorded: RecordedPrometheus) -> None:
    with pytest.raises(RunError, match="has no run other now") as caught:
        look(Prometheus(recorded.url), "other")
    assert caught.value.hint == f"it has {RUN}"


def test_a_run_that_is_there(recorded: RecordedPrometheus) -> None:
    state = look(Prometheus(recorded.url), RUN)
    assert state.run is not None
    assert state.run.run == RUN
