"""Help, usage errors and defects: what holds for every command."""

from __future__ import annotations

from typing import Any

import pytest
from commands import Fedbench

from fedbench.cli import checkout
from fedbench.config import Ports
from fedbench.host.setup.places import Places


def test_an_unknown_command_is_a_usage_error(fedbench: Fedbench) -> None:
    code, out, err = fedbench("pln")
    assert (code, out) == (2, "")
    assert "No such command 'pln'" in err


def test_help_shows_every_command(fedbench: Fedbench) -> None:
    code, out, err = fedbench("--help")
    assert (code, err) == (0, "")
    for command in (
        "up", "run", "sweep", "status", "logs", "down", "join", "plan", "data", "devices", "report",
        "calibrate", "profile-this-device", "compare",
    ):  # fmt: skip
        assert f" {command} " in out


def test_top_of_another_host_takes_a_tunnel_to_the_port_that_is_published(
    fedbench: Fedbench,
) -> None:
    _, out, _ = fedbench("top", "--help")
    said = " ".join(out.replace("│", " ").split())
    port = Ports().prometheus
    assert f"ssh -N -L {port}:localhost:{port} host, then http://localhost:{port}" in said


def test_a_defect_is_logged_not_shown(
    fedbench: Fedbench, places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> Any:
        raise RuntimeError("out of [coffee]")

    monkeypatch.setattr(checkout, "load_profile", fail)
    log = places.state / "crash.log"
    assert fedbench("plan") == (
        70,
        "",
        "error: fedbench failed: RuntimeError: out of [coffee]\n"
        f"hint: this is a defect; please report it with {log}\n",
    )
    text = log.read_text()
    assert text.startswith("Traceback (most recent call last):")
    assert text.endswith("RuntimeError: out of [coffee]\n")


def test_an_interrupt_is_not_a_defect(
    fedbench: Fedbench, places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(checkout, "load_profile", interrupt)
    code, out, _ = fedbench("plan")
    assert (code, out) == (130, "")
    assert not places.root.exists()
