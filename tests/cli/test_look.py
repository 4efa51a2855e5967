"""The commands that show what is there: what they print, and the exit code."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from commands import RUN, TESTS, Fedbench, unknown

from fedbench.cli import look
from fedbench.config import Device, available, load_device
from fedbench.host.setup.places import Places


def test_devices_are_listed_with_their_speed_and_watts(fedbench: Fedbench) -> None:
    code, out, err = fedbench("devices")
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in out.splitlines()]
    listed = {row[0]: row[1:] for row in rows if row and row[0]}
    assert (code, err, sorted(listed)) == (0, "", available("device"))
    assert listed["legacy-pc"] == ["4", "4 GiB", "-", "222 v2", "45-115", "-"]
    assert listed["raspberry-pi-4"][3:] == ["~26 v2", "1.6-7.2", "939 Mbit/s"]
    assert listed["phone"][-1] == "lte"
    assert listed["laptop"][2:4] == ["RTX 3060 Mobile", "1515 v2"]


def test_a_device_without_speed_and_watts_is_listed_too(
    fedbench: Fedbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = Device(name="bare", description="d", cores=2, memory=2**30)
    monkeypatch.setattr(look, "load_device", lambda name: bare)
    monkeypatch.setattr(look, "available", lambda kind: ["bare"])
    _, out, _ = fedbench("devices")
    row = next(line for line in out.splitlines() if "bare" in line)
    assert [cell.strip() for cell in row.split("│")[4:-1]] == ["-"] * 4


def test_of_one_device_every_figure_has_its_source_or_is_estimated(fedbench: Fedbench) -> None:
    code, out, err = fedbench("devices", "legacy-pc")
    title, *lines = out.splitlines()
    device = load_device("legacy-pc")
    assert (code, err, title) == (0, "", f"legacy-pc: {device.description}")
    found = {line.split()[0]: line for line in lines}
    assert list(found) == list(device.figures())
    assert found["speed.mobilenet_v2"].split(maxsplit=3)[1:] == [
        "222.2", "samples/s", "Negi & Chinara, Table II",
    ]  # fmt: skip
    assert found["memory"].split()[1:] == ["4", "GiB", "estimated"]


def test_devices_are_json_for_scripts(fedbench: Fedbench) -> None:
    code, out, _ = fedbench("devices", "--json")
    assert (code, [device["name"] for device in json.loads(out)]) == (0, available("device"))
    code, out, _ = fedbench("devices", "legacy-pc", "--json")
    [device] = json.loads(out)
    assert device["estimated"] == ["memory", "watts.idle", "watts.load"]
    del device["estimated"]
    assert Device.model_validate(device) == load_device("legacy-pc")


def test_an_unknown_device_is_not_shown(fedbench: Fedbench) -> None:
    assert fedbench("devices", "legacy-cp") == (2, "", f"error: {unknown('device', 'legacy-cp')}\n")


def test_a_report_without_runs_says_so(fedbench: Fedbench, places: Places) -> None:
    assert fedbench("report") == (
        5,
        "",
        f"error: no runs in {places.runs}\nhint: start one with `make up` or `make run`\n",
    )
    assert fedbench("report", "some-run") == (
        5,
        "",
        f"error: no run 'some-run' in {places.runs}\nhint: there are no runs yet\n",
    )


@pytest.mark.parametrize("command", [["report"], ["logs", "--run"]])
def test_a_run_that_does_not_exist_is_an_error_that_names_those_that_do(
    command: list[str], fedbench: Fedbench, a_run: Path
) -> None:
    assert fedbench(*command, "20260102-030406-digits") == (
        5,
        "",
        f"error: no run '20260102-030406-digits' in {a_run.parent}\nhint: did you mean {RUN}?\n",
    )


def test_the_log_of_a_run_needs_no_containers(fedbench: Fedbench, a_run: Path) -> None:
    line = {"time": "2026-01-02T03:04:40+00:00", "level": "info", "message": "x", "service": "s"}
    (a_run / "logs.jsonl").write_text(json.dumps(line) + "\n")
    code, out, err = fedbench("logs", "--run", RUN, "--json")
    assert (code, json.loads(out), err) == (0, line, "")


@pytest.mark.parametrize("argv", [["report"], ["report", RUN]])
def test_a_report_is_markdown(argv: list[str], fedbench: Fedbench, a_run: Path) -> None:
    report = (TESTS / "golden" / "report.md").read_text()
    assert fedbench(*argv) == (0, report + "\n", "")


def test_a_report_is_json_for_scripts(fedbench: Fedbench, a_run: Path) -> None:
    code, out, err = fedbench("report", "--json")
    summary = json.loads(out)
    assert (code, err, summary["run"], summary["status"]) == (0, "", RUN, "finished")
    assert [len(record["clients"]) for record in summary["rounds"]] == [3, 3]


@pytest.mark.parametrize(
    ("name", "begins"), [("r.csv", "run,experiment,"), ("r.html", "<!DOCTYPE")]
)
def test_a_report_goes_into_a_file(
    name: str, begins: str, fedbench: Fedbench, a_run: Path, tmp_path: Path
) -> None:
    file = tmp_path / name
    assert fedbench("report", RUN, "--output", str(file)) == (0, "", f"wrote {file}\n")
    assert file.read_text().startswith(begins)


def test_a_report_is_of_several_runs(fedbench: Fedbench, a_run: Path) -> None:
    shutil.copytree(a_run, a_run.parent / "other")
    code, out, _ = fedbench("report", RUN, "other", "--format", "csv")
    assert code == 0
    assert [line.split(",")[0] for line in out.splitlines()[1:] if line] == [RUN] * 6 + [
        "other"
    ] * 6
    code, out, _ = fedbench("report", RUN, "other", "--json")
    assert [summary["run"] for summary in json.loads(out)] == [RUN, "other"]


def test_data_shows_who_holds_what(fedbench: Fedbench) -> None:
    code, out, err = fedbench("data", "legacy-pair", "--json")
    shares = json.loads(out)
    assert (code, shares["test"]) == (0, 359)
    assert {client: sum(held.values()) for client, held in shares["train"].items()} == {
        "legacy-pc-1": 719,
        "legacy-pc-2": 719,
    }
    assert err == f"writing {shares['key']} for 2 clients\n"
    code, out, err = fedbench("data", "legacy-pair")
    assert (code, err) == (0, "")
    rows = [line.split("│") for line in out.splitlines() if "legacy-pc" in line]
    assert [(row[1].strip(), row[-2].strip()) for row in rows] == [
        ("legacy-pc-1", "719"),
        ("legacy-pc-2", "719"),
    ]
    assert out.endswith("359 test images on every client\n")


def test_data_is_divided_as_the_options_say(fedbench: Fedbench) -> None:
    options = ("--set", "data.partition=size", "--set", "data.partition.sizes=[100, 30]")
    code, out, err = fedbench("data", "legacy-pair", *options, "--json")
    held = json.loads(out)["train"]
    assert code == 0
    assert [sum(classes.values()) for classes in held.values()] == [100, 30]
    assert err.startswith("writing digits-size-2-s0-")
    code, out, err = fedbench("data", "heterogeneous", *options)
    assert (code, out) == (4, "")
    assert err == (
        "error: data.partition.sizes: 2 sizes for 3 clients\n"
        "hint: give one size for each client, in the order of `fedbench data`\n"
    )


def test_data_is_drawn(fedbench: Fedbench, tmp_path: Path) -> None:
    file = tmp_path / "held.svg"
    code, out, err = fedbench("data", "legacy-pair", "--picture", str(file))
    assert (code, err.splitlines()[-1]) == (0, f"drawn into {file}")
    assert "legacy-pc-2" in out
    assert "digits, iid: training images of 2 clients, seed 0" in file.read_text()
    code, out, err = fedbench("data", "--picture", "held.jpg")
    assert (code, out) == (2, "")
    assert "held.jpg: expected a .svg or .png file" in err


def test_data_that_is_not_there_is_refused(
    fedbench: Fedbench, tmp_path: Path, places: Places
) -> None:
    empty, missing = tmp_path / "empty", tmp_path / "missing"
    empty.mkdir()
    for source, what in ((missing, "no such folder"), (empty, "holds no train images")):
        for command in ("data", "up"):
            options = ("--set", "data.name=folder", "--data", str(source))
            code, out, err = fedbench(command, *options)
            assert (code, out) == (4, "")
            assert err.startswith(f"error: {source}: {what}\nhint: ")
    assert not places.root.exists()


def test_data_options_that_do_not_fit_are_refused(fedbench: Fedbench, tmp_path: Path) -> None:
    assert fedbench("data", "--data", str(tmp_path)) == (
        4,
        "",
        f"error: {tmp_path}: the data set digits is embedded and reads no folder\n"
        "hint: to train on this folder, set data.name=folder (or cifar10)\n",
    )
    assert fedbench("data", "--set", "data.name=folder") == (
        4,
        "",
        "error: the data set folder needs a folder of images\nhint: pass DATA=<folder>\n",
    )
