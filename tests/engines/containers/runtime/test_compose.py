from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fedbench.engines.containers.runtime.compose import Compose, run
from fedbench.errors import DockerError

COMPOSE = Compose("mine", Path("/state/compose.yaml"), {"FEDBENCH_IMAGE": "fedbench:cpu"})
PREFIX = "fedbench:cpu: compose --project-name mine --file /state/compose.yaml"


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        (COMPOSE.up, "up --detach --remove-orphans --quiet-pull --no-build"),
        (COMPOSE.stop, "stop --timeout 5"),
        (COMPOSE.down, "down --remove-orphans --timeout 5"),
        (COMPOSE.purge, "down --remove-orphans --timeout 5 --volumes"),
        (COMPOSE.config, "config"),
    ],
)
def test_the_exact_commands(
    command: Callable[[], object], arguments: str, docker_command: Any
) -> None:
    command()
    assert docker_command.calls == [f"{PREFIX} {arguments}"]


def test_what_compose_prints_is_the_merged_project(docker_command: Any) -> None:
    docker_command.answer("name: mine\n", "a warning\n")
    assert COMPOSE.config() == "name: mine\n"


def test_a_project_variable_wins_over_the_environments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEDBENCH_IMAGE", "other")
    monkeypatch.setenv("HOME", "/home/me")
    environment = COMPOSE.environment()
    assert (environment["FEDBENCH_IMAGE"], environment["HOME"]) == ("fedbench:cpu", "/home/me")


def test_a_command_that_fails_is_shown_with_its_last_lines(docker_command: Any) -> None:
    docker_command.answer("never shown\n", "\n".join(f"line {n}" for n in range(1, 13)), code=17)
    with pytest.raises(DockerError) as caught:
        COMPOSE.up()
    first, *tail = caught.value.message.splitlines()
    assert first == (
        "`docker compose --project-name mine --file /state/compose.yaml "
        "up --detach --remove-orphans --quiet-pull --no-build` failed:"
    )
    assert tail == [f"line {n}" for n in range(3, 13)]


def test_a_command_has_no_environment_but_the_one_given() -> None:
    assert run(["/usr/bin/env"], {"ONLY": "this"}) == "ONLY=this\n"
