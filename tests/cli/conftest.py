"""A checkout of the tests' own, and the commands as a user types them."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
from commands import RUN, TESTS, Fedbench

from fedbench import cli
from fedbench.cli import checkout
from fedbench.config import load_device, load_profile
from fedbench.engines.containers.runtime.stack import Stack
from fedbench.host.plan.plan import HostFacts, plan
from fedbench.host.setup.places import Places

HOST = HostFacts(cpus=2, memory=8 * 2**30)


@pytest.fixture
def places(own_host: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Places:
    """An empty checkout, on a host where no Docker daemon answers."""
    monkeypatch.setattr(checkout, "places", Places(tmp_path / "checkout"))
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/nobody.sock")
    monkeypatch.chdir(tmp_path)
    return checkout.places


@pytest.fixture
def fedbench(
    places: Places, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Fedbench:
    """Runs a command as the entry point does: exit code, standard output, standard error."""

    def run(*argv: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["fedbench", *argv])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        captured = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        assert "Traceback" not in captured.out + captured.err
        return ended.value.code, captured.out, captured.err

    return run


@pytest.fixture
def stack(places: Places) -> Stack:
    """A federation that was brought up once; its containers are gone."""
    devices = {"legacy-pc": load_device("legacy-pc")}
    one = plan(load_profile("legacy-pair"), devices, HOST)
    images = {"fedbench": "f", "prometheus": "p", "grafana": None}
    return Stack.write(places, one, devices, images)


@pytest.fixture
def a_run(places: Places) -> Path:
    shutil.copytree(TESTS / "golden" / "runs", places.runs)
    return places.runs / RUN
