from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest

from fedbench.errors import DockerError
from fedbench.host.setup import bootstrap
from fedbench.host.setup.images import PROMETHEUS
from fedbench.host.setup.machine import Machine
from fedbench.learning import user_models

pytest_plugins = ["host_fixtures"]

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def docker_client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[docker.DockerClient]:
    """A client of this host's Docker; a daemon started for the tests ends with them, not before.

    It is recorded in a folder of the tests' own, where `fedbench down` does not find it.
    """
    machine = Machine(state=tmp_path_factory.mktemp("docker"))
    try:
        client = bootstrap.ensure_docker(print, machine)
    except DockerError as error:
        pytest.skip(f"{error.message} ({error.hint})")
    try:
        yield client
    finally:
        client.close()
        bootstrap.stop_daemon(print, machine)


@pytest.fixture(scope="module")
def promtool() -> list[str]:
    """Promtool, or that of the image that fedbench runs, which sees this checkout."""
    if shutil.which("promtool"):
        return ["promtool"]
    found = ["docker", "image", "inspect", PROMETHEUS]
    if (
        shutil.which("docker") is None
        or subprocess.run(found, check=False, capture_output=True).returncode
    ):
        pytest.skip(f"neither promtool nor the image {PROMETHEUS} is here")
    mount = ["--volume", f"{ROOT}:{ROOT}:ro", "--workdir", str(ROOT)]
    alone = ["docker", "run", "--rm", "--interactive", "--network=none"]
    return [*alone, *mount, "--entrypoint=promtool", PROMETHEUS]


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
