from __future__ import annotations

import json
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from math import floor
from pathlib import Path
from typing import Any

import pytest
from fake_containers import FakeContainers

from fedbench.config import load_device, load_devices, load_experiment, load_profile
from fedbench.engines.containers import join as joining
from fedbench.engines.containers.join import Offer, Request, ask, join, joining_container
from fedbench.engines.containers.runtime import certificates
from fedbench.engines.containers.runtime.containers import JOINED_LABEL
from fedbench.engines.containers.runtime.stack import Stack, container_user
from fedbench.errors import ConfigError, DockerError, HostError
from fedbench.host.plan.client_container import ClientContainer
from fedbench.host.plan.plan import HostFacts, plan
from fedbench.host.plan.shares import Part
from fedbench.host.plan.targets import Assumed
from fedbench.host.setup import bootstrap
from fedbench.host.setup.places import PROJECT, Places
from fedbench.host.speed import calibration

ROOT = Path(__file__).resolve().parents[3]
EXPERIMENT = load_experiment("digits")
KEY = "digits-iid-3-s0-59f8e0fe"
RUN = json.dumps({"experiment": EXPERIMENT.model_dump(mode="json"), "data": KEY})


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.paths.append(self.path)
        if self.server.garbage:
            self.wfile.write(b"SSH-2.0-OpenSSH_9.2\r\n")
            return
        self.send_response(self.server.status)
        self.end_headers()
        self.wfile.write(self.server.body.encode())

    def log_message(self, *_: object) -> None: ...


class Server(ThreadingHTTPServer):
    """A server that answers over TLS, with the certificate of a federation."""

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.use(folder)
        self.socket = self.context.wrap_socket(
            self.socket, server_side=True, do_handshake_on_connect=False
        )
        self.status, self.body, self.garbage = 200, RUN, False
        self.paths: list[str] = []

    def use(self, folder: Path) -> None:
        own = folder / "server"
        self.context.load_cert_chain(own / "server.pem", own / "server.key")

    @property
    def address(self) -> str:
        return f"localhost:{self.server_port}"

    def handle_error(self, *_: object) -> None: ...  # a client that does not trust it hangs up


@pytest.fixture
def federation(tmp_path: Path) -> Path:
    """The folder of a federation's certificates."""
    certificates.ensure(tmp_path / "tls", certificates.SERVER_NAMES)
    return tmp_path / "tls"


@pytest.fixture
def server(federation: Path) -> Iterator[Server]:
    with Server(federation) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


# -- ask


def test_a_server_says_what_it_trains(server: Server, federation: Path) -> None:
    assert ask(server.address, federation / "ca.pem") == Offer(experiment=EXPERIMENT, data=KEY)
    assert server.paths == ["/fedbench/v1/run"]


def test_no_proxy_is_between_a_device_and_its_server(
    server: Server, federation: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("https_proxy", "HTTPS_PROXY", "all_proxy"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
    assert ask(server.address, federation / "ca.pem").data == KEY


def test_only_the_certificate_that_is_passed_is_trusted(
    server: Server, federation: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificates.ensure(tmp_path / "other", certificates.SERVER_NAMES)
    for variable in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"):
        monkeypatch.setenv(variable, str(federation / "ca.pem"))
    with pytest.raises(HostError, match="is not the server of this certificate"):
        ask(server.address, tmp_path / "other" / "ca.pem")


def test_a_server_without_a_run_has_nothing_to_join(server: Server, federation: Path) -> None:
    server.status = 404
    with pytest.raises(HostError) as caught:
        ask(server.address, federation / "ca.pem")
    assert caught.value.message == f"{server.address} has no run to join (404)"
    assert caught.value.hint == "start a run first: make run"


@pytest.mark.parametrize("body", ["", "<html>", "{}", '{"experiment": {"name": "x", "y": 1}}'])
def test_an_answer_of_another_version_is_not_understood(
    body: str, server: Server, federation: Path
) -> None:
    server.body = body
    with pytest.raises(HostError) as caught:
        ask(server.address, federation / "ca.pem")
    assert caught.value.message == f"{server.address} does not answer as a fedbench server does"
    assert caught.value.hint == (
        "check the address; both computers need the same version of fedbench"
    )


def test_an_answer_that_is_not_http_is_not_understood(server: Server, federation: Path) -> None:
    server.garbage = True
    with pytest.raises(HostError, match="does not answer as a fedbench server does"):
        ask(server.address, federation / "ca.pem")


def test_the_server_of_another_federation_is_not_trusted(server: Server, tmp_path: Path) -> None:
    certificates.ensure(tmp_path / "other", certificates.SERVER_NAMES)
    with pytest.raises(HostError) as caught:
        ask(server.address, tmp_path / "other" / "ca.pem")
    assert caught.value.message.startswith(
        f"{server.address} is not the server of this certificate: "
    )
    assert caught.value.hint == "copy ca.pem from that server's computer anew and pass CA=<file>"
    assert server.paths == []


def test_a_server_under_a_name_that_is_not_its_own_is_not_trusted(
    server: Server, federation: Path
) -> None:
    address = f"127.0.0.1:{server.server_port}"
    with pytest.raises(HostError) as caught:
        ask(address, federation / "ca.pem")
    assert caught.value.message == (
        f"{address} is not the server of this certificate: IP address mismatch, "
        "certificate is not valid for '127.0.0.1'."
    )


def test_nobody_answers(federation: Path) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(HostError) as caught:
        ask(f"localhost:{port}", federation / "ca.pem")
    assert caught.value.message == (
        f"localhost:{port} does not answer: [Errno 111] Connection refused"
    )
    assert caught.value.hint == "check the address, the firewall and CA=<file>"


@pytest.mark.parametrize(
    "address",
    [
        "", "localhost", ":9092", "localhost:", "localhost:http", "https://localhost:9092",
        "localhost:9092/fedbench", "::1:9092", "local host:9092", "localhost:99999", "müller:9092",
    ],
)  # fmt: skip
def test_what_is_no_address_is_refused(address: str, federation: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        ask(address, federation / "ca.pem")
    assert caught.value.message == f"SERVER={address}: expected host:port"
    assert caught.value.hint == "for example 192.168.1.20:9092"


def test_a_file_that_is_no_certificate_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    file.write_text("hello")
    with pytest.raises(ConfigError) as caught:
        ask("localhost:9092", file)
    assert caught.value.message == f"{file}: not a certificate"


# -- container_options

LEGACY = load_device("legacy-pc")
HOST = HostFacts(cpus=2, memory=8 * 2**30)
WHOLE = Part(4, 4, 4)
NAME = f"{PROJECT}-joined-visitor"


def request(server: str = "192.168.1.20:9092", **changes: Any) -> Request:
    whole = Request(server, LEGACY, "visitor", None, None, None, 9111)
    return replace(whole, **changes)


def described(
    asked: Request, host: HostFacts = HOST, part: Part = WHOLE, folder: Path = Path("/d")
) -> ClientContainer:
    return joining_container(asked, "fedbench:cpu", host, part, folder, Path("/ca/ca.pem"))


def test_a_device_on_the_lan_runs_within_its_own_limits() -> None:
    container = described(request(), HostFacts(16, 64 * 2**30), folder=Path("/data/joined"))
    assert container == ClientContainer(
        image="fedbench:cpu",
        user=container_user(),
        models=ROOT / "models",
        command=("python", "-m", "fedbench.client"),
        hostname="visitor",
        labels={JOINED_LABEL: PROJECT},
        environment={
            "FEDBENCH_CLIENT": "visitor",
            "FEDBENCH_DEVICE": "legacy-pc",
            "FEDBENCH_SERVER": "192.168.1.20:9092",
            "FEDBENCH_METRICS_PORT": "9111",
            "FEDBENCH_THREADS": "4",
            "OMP_NUM_THREADS": "4",
            "FEDBENCH_WATTS": "45,115",
        },
        ports={9101: 9111},
        cpu_period=100_000,
        cpu_quota=400_000,
        memory=4 * 2**30,
        mounts=("/data/joined/visitor:/data:ro", "/ca/ca.pem:/tls/ca.pem:ro"),
    )


@pytest.mark.parametrize("address", ["localhost", "127.0.0.1", "[::1]"])
def test_on_the_servers_own_host_the_container_finds_it_by_name(address: str) -> None:
    container = described(request(f"{address}:9092"))
    assert container.environment["FEDBENCH_SERVER"] == "fedbench-host:9092"
    assert container.extra_hosts == {"fedbench-host": "host-gateway"}
    assert "fedbench-host" in certificates.SERVER_NAMES


@pytest.mark.parametrize(
    ("host", "cpus", "quota", "threads", "memory"),
    [
        (HostFacts(2, 3 * 2**30), 2.0, 200_000, "2", 3 * 2**30),
        (HostFacts(64, 64 * 2**30), 0.182, 18_000, "1", 4 * 2**30),
        (HostFacts(64, 64 * 2**30), 0.004, 1_000, "1", 4 * 2**30),  # 0 would be no limit
    ],
)
def test_limits_are_those_of_a_smaller_host_or_of_the_federation_there(
    host: HostFacts, cpus: float, quota: int, threads: str, memory: int
) -> None:
    container = described(request(), host, Part(int(threads), cpus, cpus))
    assert (container.cpu_quota, container.cpu_period) == (quota, 100_000)
    assert container.environment["OMP_NUM_THREADS"] == threads
    assert container.memory == memory


# -- join


@pytest.fixture
def daemon(fake: FakeContainers, monkeypatch: pytest.MonkeyPatch) -> FakeContainers:
    """Containers of a host of two cores that has the image, and was calibrated."""
    monkeypatch.setattr(bootstrap, "ensure_client_image", lambda *_, **__: "fedbench:cpu")
    speeds = {"mobilenet_v2": Assumed(600)}
    monkeypatch.setattr(calibration, "calibrate", lambda *_, **__: speeds)
    return fake


@pytest.fixture
def port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        number: int = listener.getsockname()[1]
    return number


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places(tmp_path / "checkout")


def test_a_device_joins(
    server: Server, federation: Path, daemon: FakeContainers, places: Places, port: int
) -> None:
    one = request(server.address, ca=federation / "ca.pem", samples=100, metrics_port=port)
    assert join(places, one, lambda _: None) == NAME
    root = places.data / "joined"
    assert (root / "visitor" / KEY / "train.safetensors").is_file()
    certificate = federation / "ca.pem"
    part = Part(2, 2, 2)
    container = joining_container(one, "fedbench:cpu", HOST, part, root, certificate)
    assert daemon.started == {NAME: container}


@pytest.mark.parametrize(
    ("partition", "title"),
    [("iid", None), ("dirichlet", "dirichlet 0.5"), ("shards", "shards 2")],
)
def test_who_joins_is_told_that_its_images_are_divided_otherwise(
    partition: str, title: str | None, server: Server, federation: Path, daemon: FakeContainers,
    places: Places, port: int,
) -> None:  # fmt: skip
    experiment = load_experiment("digits", [f"data.partition={partition}"])
    server.body = Offer(experiment=experiment, data=KEY).model_dump_json()
    one = request(server.address, ca=federation / "ca.pem", samples=100, metrics_port=port)
    said: list[str] = []
    join(places, one, said.append)
    notes = [line for line in said if line.startswith("note: the federation's data")]
    assert notes == [
        f"note: the federation's data is divided by {title}, for its own clients; "
        "visitor gets images drawn from all of it, each class in its proportion"
    ] * (title is not None)


def test_a_device_trains_with_as_many_threads_as_make_it_fastest() -> None:
    assert joining._fastest({1: 778.0, 2: 357.0}, 2.0) == 1
    assert joining._fastest({1: 300.0, 2: 500.0, 4: 700.0}, 2.0) == 2
    assert joining._fastest({1: 300.0, 2: 500.0}, 0.5) == 1


def test_who_joins_on_the_federations_host_gets_what_the_device_would_get_there(
    server: Server,
    daemon: FakeContainers,
    places: Places,
    port: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    speeds = {"mobilenet_v2": Assumed(600)}
    monkeypatch.setattr(calibration, "calibrate", lambda *_, **__: speeds)
    profile = load_profile("heterogeneous")
    planned = plan(profile, load_devices(profile), HOST, speeds)
    images = {"fedbench": "f", "prometheus": "p", "grafana": None}
    Stack.write(places, planned, load_devices(profile), images)
    own = places.state / "tls"
    server.use(own)
    join(places, request(server.address, metrics_port=port), lambda _: None)
    container = daemon.started[NAME]
    need = planned.clients[-1].need
    assert container.cpu_quota == floor(100 * need) * 1000 > 0
    assert container.mounts[1] == f"{own}/ca.pem:/tls/ca.pem:ro"


def test_an_ended_container_of_that_name_makes_room(
    server: Server, federation: Path, daemon: FakeContainers, places: Places, port: int
) -> None:
    daemon.add_joined("visitor", status="exited")
    one = request(server.address, ca=federation / "ca.pem", metrics_port=port)
    join(places, one, lambda _: None)
    assert (daemon.calls, len(daemon.started)) == ([("remove", "visitor")], 1)


def test_a_running_container_of_that_name_is_left_alone(
    server: Server, federation: Path, daemon: FakeContainers, places: Places, port: int
) -> None:
    daemon.add_joined("visitor")
    one = request(server.address, ca=federation / "ca.pem", metrics_port=port)
    with pytest.raises(DockerError) as caught:
        join(places, one, lambda _: None)
    assert caught.value.message == f"container {PROJECT}-joined-visitor is running already"
    assert caught.value.hint == f"docker rm -f {PROJECT}-joined-visitor"
    assert (daemon.calls, daemon.started) == ([], {})


def test_a_metrics_port_that_is_taken_is_refused(
    server: Server, federation: Path, daemon: FakeContainers, places: Places
) -> None:
    taken = server.server_port
    one = request(server.address, ca=federation / "ca.pem", metrics_port=taken)
    with pytest.raises(HostError, match=rf"^port {taken} \(metrics\) is taken by ") as caught:
        join(places, one, lambda _: None)
    assert "--metrics-port " in caught.value.hint
    assert daemon.started == {}


def test_what_docker_refuses_is_said(
    server: Server, federation: Path, daemon: FakeContainers, places: Places, port: int
) -> None:
    daemon.refusals["start"] = "no space left on device"
    one = request(server.address, ca=federation / "ca.pem", metrics_port=port)
    with pytest.raises(DockerError) as caught:
        join(places, one, lambda _: None)
    assert caught.value.message == (
        f"container {PROJECT}-joined-visitor does not start: no space left on device"
    )


def test_without_the_federations_certificate_nobody_joins(places: Places) -> None:
    with pytest.raises(ConfigError) as caught:
        join(places, request(), lambda _: None)
    certificate = places.state / "tls" / "ca.pem"
    assert caught.value.message == f"no certificate of the federation: {certificate}"
    assert "pass CA=<file>" in caught.value.hint


@pytest.mark.parametrize("name", ["../visitor", "My Laptop", ""])
def test_a_name_that_no_container_can_have_is_refused(name: str, places: Places) -> None:
    with pytest.raises(ConfigError, match=f"^NAME={name}: expected lower-case letters"):
        join(places, request(name=name), lambda _: None)
