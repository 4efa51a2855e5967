"""Joins a federation from outside its compose project: what a device on the LAN runs.

A model of the user's own comes from this checkout's `models/`: no code travels over the network.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPException
from math import floor
from pathlib import Path

import requests
from pydantic import ValidationError

from fedbench.config import Device, ModelName, parse_name
from fedbench.config.partitions import Dirichlet, Shards
from fedbench.engines.containers.emulation import calibrated
from fedbench.engines.containers.runtime import daemon, ports
from fedbench.engines.containers.runtime.containers import JOINED_LABEL, Containers
from fedbench.engines.containers.runtime.stack import Stack, container_user
from fedbench.errors import ConfigError, DockerError, HostError
from fedbench.host.data.prepare import prepare_joined
from fedbench.host.plan import targets
from fedbench.host.plan.client_container import ClientContainer
from fedbench.host.plan.plan import HostFacts
from fedbench.host.plan.shares import Demand, Part, solve
from fedbench.host.say import Say
from fedbench.host.setup import bootstrap
from fedbench.host.setup.places import PROJECT, Places
from fedbench.learning import user_models
from fedbench.records.energy import Draw
from fedbench.wire import RUN_PATH, Offer

METRICS_PORT = 9101
_PERIOD = 100_000  # microseconds
_LOCAL = ("localhost", "127.0.0.1", "[::1]")
_ADDRESS = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[\w.-]+):(\d{1,5})", re.ASCII)
_HOST_ALIAS = "fedbench-host"


@dataclass(frozen=True)
class Request:
    """Who joins which server, with what."""

    server: str
    device: Device
    name: str
    ca: Path | None
    source: Path | None
    samples: int | None
    metrics_port: int


def join(places: Places, request: Request, say: Say) -> str:
    """Prepare this client's data and start its container; return the container's name.

    Raises:
        ConfigError: the client's name, the server's address or the certificate is wrong.
        HostError: the server does not answer, has no run yet, or the metrics port is taken.
        DataError: the data cannot be had here.
    """
    try:
        parse_name(request.name)
    except ValueError as error:
        raise ConfigError(f"NAME={request.name}: {error}") from None
    certificate = request.ca or places.state / "tls" / "ca.pem"
    if not certificate.is_file():
        raise ConfigError(
            f"no certificate of the federation: {certificate}",
            "copy .fedbench/fedbench/tls/ca.pem from the server's computer and pass CA=<file>",
        )
    offer = ask(request.server, certificate)
    partition = offer.experiment.data.partition
    if isinstance(partition, Dirichlet | Shards):
        say(
            f"note: the federation's data is divided by {partition.title}, for its own clients; "
            f"{request.name} gets images drawn from all of it, each class in its proportion"
        )
    root = places.data / "joined"
    prepare_joined(
        offer.experiment,
        request.name,
        offer.data,
        root,
        source=request.source,
        samples=request.samples,
        say=say,
    )
    with bootstrap.alone_on_host(say):
        containers = daemon.connect(say)
        image = bootstrap.ensure_client_image(containers, say, root=places.root)
        host = containers.host()
        part = _part(places, request, offer.experiment.model, containers, image, host, say)
        name = f"{PROJECT}-joined-{request.name}"
        _remove_ended(containers, name)
        ports.require_one_free("metrics", request.metrics_port, "--metrics-port ")
        described = joining_container(request, image, host, part, root, certificate)
        return containers.start(name, described).name


def ask(server: str, certificate: Path) -> Offer:
    """Ask the server what the federation trains right now.

    Raises:
        ConfigError: not host:port, or not a certificate.
        HostError: no answer, no run yet, or not the server that the certificate is of.
    """
    address = _ADDRESS.fullmatch(server)
    if address is None or int(address[2]) > 65535:
        raise ConfigError(f"SERVER={server}: expected host:port", "for example 192.168.1.20:9092")
    _require_certificate(certificate)
    try:
        with requests.Session() as session:
            session.trust_env = False  # the client's container knows no proxy either
            url = f"https://{server}{RUN_PATH}"
            answer = session.get(url, verify=str(certificate), timeout=10)
    except requests.RequestException as error:
        raise _no_answer(server, _root_cause(error)) from None
    if not answer.ok:
        hint = "start a run first: make run"
        raise HostError(f"{server} has no run to join ({answer.status_code})", hint)
    try:
        return Offer.model_validate_json(answer.content)
    except ValidationError:
        raise _another_server(server) from None


def joining_container(
    request: Request, image: str, host: HostFacts, part: Part, root: Path, certificate: Path
) -> ClientContainer:
    """Describe the container: `part` of this computer's CPUs, and the device's other limits."""
    address, _, port = request.server.rpartition(":")
    local = address in _LOCAL
    watts = request.device.watts
    return ClientContainer(
        image=image,
        user=container_user(),
        models=user_models.FOLDER,
        hostname=request.name,
        labels={JOINED_LABEL: PROJECT},
        environment={
            "FEDBENCH_CLIENT": request.name,
            "FEDBENCH_DEVICE": request.device.name,
            # A container's own localhost is not this computer.
            "FEDBENCH_SERVER": f"{_HOST_ALIAS}:{port}" if local else request.server,
            "FEDBENCH_METRICS_PORT": str(request.metrics_port),
            "FEDBENCH_THREADS": str(part.threads),
            "OMP_NUM_THREADS": str(part.threads),
            **(Draw(watts.idle, watts.load).environment() if watts else {}),
        },
        extra_hosts={_HOST_ALIAS: "host-gateway"} if local else {},
        ports={METRICS_PORT: request.metrics_port},
        cpu_period=_PERIOD,
        cpu_quota=max(floor(part.need * 100), 1) * _PERIOD // 100,
        memory=min(request.device.memory, host.memory),
        mounts=(
            f"{(root / request.name).absolute()}:/data:ro",
            f"{certificate.absolute()}:/tls/ca.pem:ro",
        ),
    )


def _require_certificate(file: Path) -> None:
    try:
        ssl.create_default_context(cafile=str(file))
    except ssl.SSLError:
        raise ConfigError(
            f"{file}: not a certificate", "pass the federation's ca.pem as CA=<file>"
        ) from None


def _root_cause(error: BaseException) -> BaseException:
    """Return what requests and urllib3 wrapped: an error of the socket, of TLS or of HTTP."""
    while cause := error.__cause__ or error.__context__:
        error = cause
    return error


def _no_answer(server: str, reason: BaseException) -> HostError:
    if isinstance(reason, ssl.SSLCertVerificationError):
        return HostError(
            f"{server} is not the server of this certificate: {reason.verify_message}",
            "copy ca.pem from that server's computer anew and pass CA=<file>",
        )
    if isinstance(reason, HTTPException):
        return _another_server(server)
    return HostError(
        f"{server} does not answer: {reason}", "check the address, the firewall and CA=<file>"
    )


def _another_server(server: str) -> HostError:
    return HostError(
        f"{server} does not answer as a fedbench server does",
        "check the address; both computers need the same version of fedbench",
    )


def _part(
    places: Places,
    request: Request,
    trained: ModelName,
    containers: Containers,
    image: str,
    host: HostFacts,
    say: Say,
) -> Part:
    """Return a real device's cores; beside a federation on this host, what it would get there."""
    device, stack = request.device, Stack.load(places)
    local = request.server.rpartition(":")[0] in _LOCAL
    if not (stack and local and device.speed):
        cpus = min(device.cores, host.cpus)
        speeds = calibrated(containers, image, (), trained, places.calibration, say)[
            trained
        ].by_threads
        return Part(_fastest(speeds, cpus), cpus, cpus)
    model = targets.workload(device, "mobilenet_v2")
    measured = calibrated(containers, image, [device], model, places.calibration, say)
    single = device.speed[model]
    demand = Demand(device.name, single, single, targets.loaded(measured[model]))
    return solve([demand], host.cpus, stack.dilation).parts[0]


def _fastest(by_threads: Mapping[int, float], cpus: float) -> int:
    """Return the number of threads, within the CPUs, that trains fastest: often one."""
    fitting = {number: speed for number, speed in by_threads.items() if number <= max(cpus, 1)}
    return max(fitting, key=lambda number: fitting[number])


def _remove_ended(containers: Containers, name: str) -> None:
    container = containers.named(name)
    if container and container.is_running:
        raise DockerError(f"container {name} is running already", f"docker rm -f {name}")
    if container:
        containers.remove(container)
