from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fedbench.config import load_devices, load_profile
from fedbench.errors import FedbenchError
from fedbench.host import bootstrap
from fedbench.host.plan import HostFacts, plan
from fedbench.host.stack import PROJECT, Places, Stack
from fedbench.host.teardown import down


class FakeDocker:
    """Docker with one joined container, and whatever else runs."""

    def __init__(self, *others: str) -> None:
        self.containers = self
        self.others = others
        self.removed: list[bool] = []

    def list(self, **options: Any) -> list[Any]:
        if not options:
            return list(self.others)
        assert options == {"all": True, "filters": {"label": f"fedbench.joined={PROJECT}"}}
        return [self]

    def remove(self, *, force: bool) -> None:
        self.removed.append(force)


@pytest.fixture
def places(tmp_path: Path) -> Places:
    places = Places(tmp_path / "checkout")
    profile = load_profile("legacy-pair")
    planned = plan(profile, load_devices(profile), HostFacts(cpus=2, memory=8 * 2**30))
    images = {"fedbench": "fedbench:cpu", "prometheus": "p", "grafana": None}
    Stack.write(places, planned, load_devices(profile), images)
    return places


def stopper(stopped: list[str]) -> Callable[[object], bool]:
    def stop(_: object) -> bool:
        stopped.append("the daemon")
        return True

    return stop


@pytest.mark.parametrize(("others", "stops"), [((), 1), (("postgres",), 0)])
def test_a_daemon_stops_only_when_nothing_else_runs(
    others: tuple[str, ...],
    stops: int,
    places: Places,
    docker_command: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    daemon = FakeDocker(*others)
    stopped: list[str] = []
    monkeypatch.setattr(bootstrap, "ensure_docker", lambda say: daemon)
    monkeypatch.setattr(bootstrap, "stop_daemon", stopper(stopped))
    said: list[str] = []
    down(places, said.append, volumes=False)
    assert daemon.removed == [True]
    assert len(docker_command.calls) == 1
    assert len(stopped) == stops
    assert said[-1] == "the federation is down; runs are kept in runs/"
    assert Stack.load(places) is None


def test_what_is_not_up_is_not_taken_down(places: Places) -> None:
    (places.state / "stack.json").unlink()
    with pytest.raises(FedbenchError, match="no federation is up"):
        down(places, print, volumes=False)
