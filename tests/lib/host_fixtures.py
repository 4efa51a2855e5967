from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingMixIn, UnixStreamServer
from typing import Any
from urllib.parse import unquote

import docker
import pytest
from fake_containers import FakeContainers

from fedbench.engines.containers.runtime import certificates as tls
from fedbench.engines.containers.runtime import daemon as real
from fedbench.engines.containers.runtime.containers import Containers
from fedbench.engines.containers.runtime.daemon import DockerContainers
from fedbench.host.setup import bootstrap, locks
from fedbench.host.setup.bootstrap import ensure_client_image
from fedbench.host.setup.machine import Done

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls")
    tls.ensure(folder)
    return folder


@dataclass
class Commands:
    """Records commands instead of running them; answers by the first words of a command."""

    answers: dict[str, Done] = field(default_factory=dict)
    calls: list[list[str]] = field(default_factory=list)
    environments: list[Mapping[str, str] | None] = field(default_factory=list)

    def __call__(
        self,
        argv: Sequence[str],
        *,
        on_line: Callable[[str], None] | None = None,
        timeout: float | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> Done:
        self.calls.append(list(argv))
        self.environments.append(environment)
        line = " ".join(argv)
        return next((done for words, done in self.answers.items() if words in line), Done(0))


class _Handler(BaseHTTPRequestHandler):
    server: FakeDaemon

    def do_GET(self) -> None:
        path = unquote(self.path).split("/", 2)
        body: Any = None
        if path[-1] == "version":
            body = self.server.version
        elif path[2].startswith("containers/json"):
            body = [{"Id": name} for name in self.server.running]
        elif path[2].startswith("containers/"):
            name = path[2].split("/")[1]
            body = {"Id": name} if name in self.server.running else None
        elif path[2].startswith("images/"):
            body = self.server.images.get(path[2].removeprefix("images/").removesuffix("/json"))
        self.send_response(404 if body is None else 200)
        content = json.dumps({"message": "no such image"} if body is None else body).encode()
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None: ...


class FakeDaemon(ThreadingMixIn, UnixStreamServer):
    """Answers, over a socket, the questions that the bootstrap asks a Docker daemon."""

    daemon_threads = True

    def __init__(self, socket: Path) -> None:
        super().__init__(str(socket), _Handler)
        self.url = f"unix://{socket}"
        self.version = {"Version": "26.1.5", "ApiVersion": "1.45"}
        self.images: dict[str, dict[str, Any]] = {}
        self.running: list[str] = []

    def add(self, image: str, labels: Mapping[str, str] | None = None) -> None:
        self.images[image] = {"Id": f"sha256:{image}", "Config": {"Labels": labels or {}}}

    def connect(self) -> docker.DockerClient:
        return docker.DockerClient(base_url=self.url)


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[FakeDaemon]:
    with FakeDaemon(tmp_path / "docker.sock") as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


_HOLD = """
import sys
from pathlib import Path
from fedbench.host.setup.locks import exclusive, locked
file, kind = Path(sys.argv[1]), sys.argv[2]
with exclusive(file, "") if kind == "named" else locked(file, shared=kind == "shared"):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def _held(path: Path, kind: str) -> Iterator[subprocess.Popen[str]]:
    argv = [sys.executable, "-c", _HOLD, str(path), kind]
    pipe = subprocess.PIPE
    with subprocess.Popen(argv, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process


@pytest.fixture
def held() -> Callable[[Path, str], AbstractContextManager[subprocess.Popen[str]]]:
    """Another process that holds the lock of a path until it may end.

    It holds it `shared` or `alone`, or as a lock file with its name in it: `named`.
    """
    return _held


@pytest.fixture
def own_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of the test's own for locks: nobody who works on this host is waited for."""
    folder = tmp_path / "locks"
    monkeypatch.setattr(locks, "FOLDER", folder)
    return folder


@pytest.fixture
def fake(own_host: Path, monkeypatch: pytest.MonkeyPatch) -> FakeContainers:
    """Containers in memory, which every command of this test finds.

    A `down` that sees nothing run in them stops no daemon of this host, which others may need.
    """
    containers = FakeContainers()
    monkeypatch.setattr(bootstrap, "stop_daemon", lambda *_: False)
    monkeypatch.setattr(real, "connect", lambda *_: containers)
    monkeypatch.setattr(real, "find", lambda *_: containers)
    return containers


@pytest.fixture(scope="session")
def docker_containers(docker_client: docker.DockerClient) -> Containers:
    """Those of this host's Docker."""
    return DockerContainers(docker_client)


@pytest.fixture(scope="session")
def helper_image(docker_containers: Containers) -> str:
    """The image of server and clients, which has the helper too."""
    return ensure_client_image(docker_containers, print, root=ROOT)


@pytest.fixture
def commands() -> Commands:
    """Everything is there: a command that is not in `answers` succeeds."""
    return Commands({"docker compose version": Done(0, "2.26.1-4\n")})


@dataclass
class DockerCommand:
    """A program `docker` that comes first on PATH: it prints `output` and notes its arguments."""

    folder: Path

    @property
    def calls(self) -> list[str]:
        return (self.folder / "calls").read_text().splitlines()

    def answer(self, output: str = "", errors: str = "", code: int = 0) -> None:
        (self.folder / "output").write_text(output)
        (self.folder / "errors").write_text(errors)
        (self.folder / "code").write_text(str(code))


@pytest.fixture
def docker_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DockerCommand:
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / "docker"
    program.write_text(
        f"#!/bin/sh\ncd {folder}\n"
        'echo "$FEDBENCH_IMAGE: $*" >>calls\ncat output\ncat errors >&2\nexit $(cat code)\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    command = DockerCommand(folder)
    command.answer()
    return command
