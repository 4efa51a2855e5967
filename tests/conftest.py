from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Generator, Iterator
from contextlib import ExitStack
from pathlib import Path

import docker
import pytest

from fedbench.errors import DockerError
from fedbench.host.setup import bootstrap
from fedbench.learning import user_models

pytest_plugins = ["host_fixtures"]

# Before torch is imported, here and in what tests start: threads of several processes that train
# on the same cores spend their time waiting for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

ROOT = Path(__file__).resolve().parent.parent


@pytest.hookimpl(tryfirst=True, wrapper=True)  # before `-m` chooses
def pytest_collection_modifyitems(items: list[pytest.Item]) -> Generator[None]:
    """Mark what asks for Docker, so that `-m "not docker"` never touches a daemon.

    What takes longest comes first: else a core is idle at the end, while another still trains.
    """
    needs = {"docker_client"} if shutil.which("promtool") else {"docker_client", "promtool"}
    for item in items:
        if needs & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.docker)
    yield
    items.sort(key=lambda item: item.get_closest_marker("processes") is None)


@pytest.fixture(scope="session", autouse=True)
def _nothing_outlives_the_machine() -> Iterator[None]:
    """Wait for no disk: what these tests write need not survive a power cut."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield


@pytest.fixture(scope="session")
def docker_client() -> Iterator[docker.DockerClient]:
    """A client of this host's Docker, which no `fedbench down` stops while the tests run."""
    with ExitStack() as session:
        try:
            client = session.enter_context(bootstrap.docker_session(print))
        except DockerError as error:
            pytest.skip(f"{error.message} ({error.hint})")
        yield client


@pytest.fixture(scope="module")
def promtool(request: pytest.FixtureRequest) -> list[str]:
    """Promtool, or that of the image that fedbench runs, which sees this checkout."""
    if shutil.which("promtool"):
        return ["promtool"]
    containers = request.getfixturevalue("docker_containers")
    image = bootstrap.ensure_images(containers, print, root=ROOT).prometheus
    mount = ["--volume", f"{ROOT}:{ROOT}:ro", "--workdir", str(ROOT)]
    alone = ["docker", "run", "--rm", "--interactive", "--network=none"]
    return [*alone, *mount, "--entrypoint=promtool", image]


@pytest.fixture
def own_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder in the place of the checkout's `models/`."""
    folder = tmp_path / "models"
    folder.mkdir()
    monkeypatch.setattr(user_models, "FOLDER", folder)
    monkeypatch.setattr(sys, "path", [*sys.path])
    before = set(sys.modules)
    yield folder
    for name in sys.modules.keys() - before:
        if Path(getattr(sys.modules[name], "__file__", None) or "/").parent == folder:
            del sys.modules[name]
