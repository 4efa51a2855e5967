"""The commands that measure this computer: what they print, and the exit code."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from commands import MODEL, NAME, Fedbench, markdown_rows
from fake_containers import FakeContainers

from fedbench.config import load_device
from fedbench.config.model_names import MODELS
from fedbench.host.setup import bootstrap
from fedbench.host.setup.places import Places
from fedbench.host.speed import calibration, profiling
from fedbench.host.speed.cache import ModelSpeed


def test_without_a_daemon_nothing_is_calibrated(fedbench: Fedbench, places: Places) -> None:
    code, out, err = fedbench("calibrate")
    assert (code, out) == (3, "")
    assert "error: no Docker daemon answers at unix://" in err
    assert not places.root.exists()


@pytest.mark.parametrize("command", ["calibrate", "profile-this-device"])
def test_an_unknown_model_is_a_usage_error(command: str, fedbench: Fedbench) -> None:
    code, out, err = fedbench(command, "--model", "mobilenetv2")
    assert (code, out) == (2, "")
    assert f"{MODEL}, found 'mobilenetv2'; did you mean mobilenet_v2" in err


def test_speeds_are_a_table_or_json(
    fedbench: Fedbench, places: Places, fake: FakeContainers, monkeypatch: pytest.MonkeyPatch
) -> None:
    speed = ModelSpeed(
        model="mobilenet_v2",
        by_threads={1: 660.0, 2: 320.0},
        busy=630.0,
        quota_efficiency=0.97,
        step_cpu_seconds=0.0485,
        spread=(600.0, 700.0),
        of_reference=1.0,
        measured_at=datetime(2026, 1, 2, tzinfo=UTC),
        note="others used 12% of the CPUs",
    )
    asked: list[Any] = []

    def measure(*argv: Any, **options: Any) -> dict[str, ModelSpeed]:
        asked.append((argv[2], argv[3], options))
        return {"mobilenet_v2": speed}

    monkeypatch.setattr(bootstrap, "ensure_client_image", lambda *_, **__: "fedbench:cpu")
    monkeypatch.setattr(calibration, "calibrate", measure)
    code, out, err = fedbench("calibrate")
    assert (code, err) == (0, "note: mobilenet_v2: others used 12% of the CPUs\n")
    assert markdown_rows(out)[2][:5] == ["mobilenet_v2", "660", "600 to 700", "2: 320", "630"]
    code, out, err = fedbench("calibrate", "--model", "mobilenet_v2", "--fresh", "--json")
    assert ModelSpeed.model_validate(json.loads(out)["mobilenet_v2"]) == speed
    file = places.root / ".fedbench" / "calibration.json"
    assert asked == [
        (MODELS, file, {"cores": 2, "fresh": False}),
        (["mobilenet_v2"], file, {"cores": 2, "fresh": True}),
    ]


def test_a_device_is_printed_or_written_as_yaml(
    fedbench: Fedbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = {"description": "a box: mine", "cores": 2, "memory": "512MiB"}
    monkeypatch.setattr(profiling, "profile", lambda runner, name, *_: {"name": name, **keys})
    file = tmp_path / "box.yaml"
    code, out, err = fedbench("profile-this-device", "--bare", "--name", "my-box")
    assert (code, err, yaml.safe_load(out)) == (0, "", {"name": "my-box", **keys})
    code, out, err = fedbench("profile-this-device", "--bare", "--output", str(file))
    assert (code, out) == (0, "")
    assert err == f"wrote {file}; `fedbench join --device {file}` uses it\n"
    assert load_device(str(file)).name == profiling.default_name()


def test_a_device_needs_a_proper_name(fedbench: Fedbench) -> None:
    code, out, err = fedbench("profile-this-device", "--bare", "--name", "My Box")
    assert (code, out) == (2, "")
    assert f"Invalid value for --name: My Box: {NAME}" in err
