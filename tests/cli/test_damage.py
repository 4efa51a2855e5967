"""Whatever is damaged on disk: a command says which file in one line, and never ends with 70."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest
from commands import RUN, Fedbench
from damage import turn
from fake_containers import FakeContainers

from fedbench.engines.containers.runtime.stack import Stack
from fedbench.engines.in_process.engine import InProcessEngine
from fedbench.host.setup.places import Places

PLACES = (0.0, 0.1, 0.35, 0.6, 0.9, 0.999)


def ways(content: bytes) -> list[bytes]:
    """The content cut off, and with a bit turned, at some places."""
    sizes = [int(len(content) * place) for place in PLACES]
    return [content[:size] for size in sizes] + [turn(content, [(size, 5)]) for size in sizes]


def explained(code: int, err: str) -> None:
    assert code != 70, err
    assert "Traceback" not in err
    assert code == 0 or err.count("error: ") == 1, err


@pytest.mark.parametrize("argv", [["status"], ["run"], ["run", "--resume", RUN], ["logs"], ["top"]])
def test_a_damaged_stack_file_is_explained(
    argv: list[str], fedbench: Fedbench, places: Places, a_run: Path, stack: Stack
) -> None:
    file = places.state / "stack.json"
    for content in ways(file.read_bytes()):
        file.write_bytes(content)
        code, _, err = fedbench(*argv)
        explained(code, err)


def test_it_is_taken_down_all_the_same(
    fedbench: Fedbench, places: Places, stack: Stack, fake: FakeContainers, docker_command: Any
) -> None:
    file = places.state / "stack.json"
    for content in ways(file.read_bytes()):
        file.write_bytes(content)
        code, _, err = fedbench("down")
        assert code == 0, err
        assert not file.exists()


@pytest.mark.parametrize("name", ["run.json", "events.jsonl", "rounds.jsonl"])
@pytest.mark.parametrize(
    "argv",
    [
        ["report", RUN], ["report", RUN, "--json"], ["report", RUN, "--format", "csv"],
        ["status"], ["run"], ["run", "--resume", RUN], ["logs", "--run", RUN], ["down"],
    ],
)  # fmt: skip
def test_a_damaged_run_is_explained(
    argv: list[str],
    name: str,
    fedbench: Fedbench,
    places: Places,
    a_run: Path,
    stack: Stack,
    fake: FakeContainers,
    docker_command: Any,
) -> None:
    whole, up = (a_run / name).read_bytes(), (places.state / "stack.json").read_bytes()
    fake.add("server")
    fake.refusals["execute"] = "a run would begin here"
    for content in ways(whole):
        (places.state / "stack.json").write_bytes(up)
        (a_run / name).write_bytes(content)
        (a_run / "summary.json").unlink(missing_ok=True)
        code, _, err = fedbench(*argv)
        explained(code, err)
        assert argv != ["down"] or code == 0, err


def test_a_run_whose_end_cannot_be_told_is_so_in_the_status(
    fedbench: Fedbench, a_run: Path, stack: Stack, fake: FakeContainers
) -> None:
    (a_run / "summary.json").write_text("{")
    (a_run / "rounds.jsonl").write_text("{}\n{}\n")
    code, out, _ = fedbench("status", "--json")
    assert code == 0
    assert "unknown: " in out
    assert "line 1 is damaged" in out.replace("\n", " ")


def test_a_full_disk_is_no_defect(fedbench: Fedbench, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "/runs/x/run.json")

    monkeypatch.setattr(InProcessEngine, "create", full)
    code, out, err = fedbench("run", "digits", "--engine", "in-process")
    assert (code, out) == (3, "")
    assert err == (
        "error: no room is left on a disk: [Errno 28] No space left on device: "
        "'/runs/x/run.json'\nhint: make room; what was whole before still is\n"
    )
