"""One federation for all end-to-end tests: brought up as the README says, taken down at the end."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import docker
import pytest
from docker.models.containers import Container
from harness import PROJECT, ROOT, SET_PORTS, STATE, Done, leftovers, purge, run

HERE = Path(__file__).parent
# One federation serves all tests of a file, and where it can those of the next: images first, then
# the first run's federation, which README's commands go on with and take down; then the pairs.
# Every file of this folder has its place here: whoever wants `first_run` stands before README.
ORDER = (
    "test_image",
    "test_federation",
    "test_two_at_once",
    "test_chaos",
    "test_without_prometheus",
    "test_readme",
    "test_sweep",
    "test_memory",
    "test_stock",
    "test_emulation",
    "test_fresh",  # this and the next need no Docker: they run beside the unit tests
    "test_plausibility",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files of this folder in that order; all others come after them, as they were."""
    if unknown := {path.stem for path in HERE.glob("test_*.py")} - set(ORDER):
        raise pytest.UsageError(f"tests/e2e/conftest.py: ORDER lacks {', '.join(sorted(unknown))}")

    def place(item: pytest.Item) -> int:
        return ORDER.index(item.path.stem) if item.path.parent == HERE else len(ORDER)

    items.sort(key=place)


@pytest.fixture(scope="session")
def clean(docker_client: docker.DockerClient) -> Iterator[docker.DockerClient]:
    """Docker without anything of the tests, before and after; nor are the tests' runs kept."""
    before = set((ROOT / "runs").glob("*"))
    purge(docker_client)
    try:
        yield docker_client
    finally:
        purge(docker_client)
        assert leftovers(docker_client) == []
        for path in set((ROOT / "runs").glob("*")) - before:
            if not belongs_to_another(path):
                shutil.rmtree(path)
        shutil.rmtree(ROOT / "data" / PROJECT, ignore_errors=True)
        shutil.rmtree(STATE, ignore_errors=True)


def belongs_to_another(path: Path) -> bool:
    """Whether somebody made this run on a federation of his own while the tests ran."""
    facts = path / "run.json"
    return facts.exists() and json.loads(facts.read_text()).get("project", PROJECT) != PROJECT


@pytest.fixture(scope="session")
def first_run(clean: docker.DockerClient) -> Done:
    """The README's first command, as it stands there, on a machine with nothing up."""
    return run("make", "up", "PROFILE=heterogeneous", SET=SET_PORTS, timeout=1800)


@pytest.fixture
def containers(first_run: Done, clean: docker.DockerClient) -> Callable[[], dict[str, Container]]:
    """The federation's containers by service, as they are now."""

    def find() -> dict[str, Container]:
        label = f"com.docker.compose.project={PROJECT}"
        found = clean.containers.list(all=True, filters={"label": label})
        return {c.labels["com.docker.compose.service"]: c for c in found}

    return find
