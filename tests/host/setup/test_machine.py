from __future__ import annotations

import json
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from docker.errors import DockerException

from fedbench.host.setup.machine import (
    LOCAL_SOCKET,
    Done,
    HostMachine,
    execute,
)


def test_output_is_kept_and_given_line_by_line() -> None:
    lines: list[str] = []
    done = execute(["sh", "-c", "echo one; echo two >&2; exit 3"], on_line=lines.append)
    assert done == Done(3, "one\ntwo\n")
    assert lines == ["one", "two"]


def test_environment_is_added_to_that_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLD", "old")
    done = execute(["sh", "-c", "echo $OLD $NEW"], environment={"NEW": "new"})
    assert done.output == "old new\n"


def test_a_missing_program_is_code_127() -> None:
    assert execute(["no-such-program"]) == Done(127, "no-such-program: command not found")


def test_a_command_that_takes_too_long_is_code_124() -> None:
    done = execute([sys.executable, "-c", "import time; time.sleep(60)"], timeout=0.05)
    assert done.code == 124
    assert done.output.endswith("no end after 0 s\n")


def test_tail_has_the_last_lines() -> None:
    assert Done(1, "\n".join(map(str, range(30)))).tail(2) == "28\n29"


@pytest.mark.parametrize(
    ("is_root", "distribution", "expected"),
    [
        (True, "debian", True),
        (True, "ubuntu", True),
        (True, "fedora", False),
        (False, "debian", False),
    ],
)
def test_who_can_install(is_root: bool, distribution: str, expected: bool) -> None:
    assert HostMachine(is_root=is_root, distribution=distribution).can_install is expected


@pytest.fixture
def contexts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty ~/.docker, and none of Docker's variables."""
    for name in ("DOCKER_HOST", "DOCKER_CONTEXT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    return tmp_path


def test_the_local_socket_is_the_default_endpoint(contexts: Path) -> None:
    assert HostMachine().endpoint == LOCAL_SOCKET


def test_docker_host_wins(contexts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://lab:2376")
    assert HostMachine().endpoint == "tcp://lab:2376"


def test_the_current_context_names_the_endpoint(contexts: Path, daemon: Any) -> None:
    (contexts / "config.json").write_text('{"currentContext": "lab"}')
    meta = contexts / "contexts" / "meta" / sha256(b"lab").hexdigest() / "meta.json"
    meta.parent.mkdir(parents=True)
    endpoint = {"Host": daemon.url, "SkipTLSVerify": False}
    meta.write_text(json.dumps({"Name": "lab", "Metadata": {}, "Endpoints": {"docker": endpoint}}))
    machine = HostMachine()
    assert machine.endpoint == daemon.url
    client = machine.connect()
    assert client.version() == daemon.version
    client.close()


def test_nobody_answers(contexts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{contexts}/docker.sock")
    with pytest.raises(DockerException, match="No such file or directory"):
        HostMachine().connect()
