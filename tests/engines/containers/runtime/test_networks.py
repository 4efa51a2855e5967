"""Two containers on a network of the tests' own: a client, which is shaped, and a server."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import cast

import docker
import pytest
from docker.models.containers import Container
from harness import PROJECT, remove_named

from fedbench.client.settings import METRICS_PORT
from fedbench.config import Network
from fedbench.engines.containers.runtime.containers import Containers
from fedbench.engines.containers.runtime.networks import probe, shape, switch
from fedbench.errors import DockerError
from fedbench.helper import shape as helper_shape
from fedbench.host.plan.networks import Capabilities, dilated, unapplied
from fedbench.records.clock import Dilation

NETWORK = f"{PROJECT}-network"
RATE = 10e6
MB = 1_000_000
# Of a TCP segment: bytes that it carries, and those that it is on an Ethernet.
CARRIED, SENT = 1448, 1514
# Sends or receives so many bytes over TCP; prints seconds.
CLIENT = """
import json, socket, sys, time
way, size = sys.argv[1], int(sys.argv[2])
with socket.create_connection((sys.argv[3], 9000)) as link:
    start = time.monotonic()
    link.sendall(json.dumps([way, size]).encode().ljust(64))
    if way == "up":
        link.sendall(bytes(size))
        assert link.recv(1) == b"."
    else:
        left = size
        while left:
            left -= len(link.recv(min(left, 1 << 16)))
    print(time.monotonic() - start)
"""
SERVER = """
import json, socket
with socket.create_server(("", 9000)) as server:
    print("ready", flush=True)
    while True:
        link, _ = server.accept()
        way, left = json.loads(link.recv(64, socket.MSG_WAITALL))
        if way == "down":
            link.sendall(bytes(left))
        else:
            while left:
                left -= len(link.recv(min(left, 1 << 16)))
            link.sendall(b".")
        link.close()
"""

SCRAPE = f"""
import urllib.request
urllib.request.urlopen("http://{NETWORK}-client:{METRICS_PORT}/", timeout=2).read()
"""


def due(size: int, rate: float) -> float:
    """Seconds that so many bytes take at so many bit/s, with the headers of their packets."""
    return 8 * size * SENT / CARRIED / rate


Transfer = Callable[[str, int], float]
Shape = Callable[[Container, Network | None], None]


@pytest.fixture
def client(docker_client: docker.DockerClient, helper_image: str) -> Iterator[Container]:
    """A container like a client's, without any right, beside a server."""
    remove_named(docker_client, NETWORK)
    network = docker_client.networks.create(NETWORK, internal=True)
    containers: list[Container] = []
    try:
        for name, argv in (
            ("server", ["python", "-c", SERVER]),
            ("client", ["sleep", "infinity"]),
        ):
            containers.append(
                docker_client.containers.run(
                    helper_image,
                    argv,
                    name=f"{NETWORK}-{name}",
                    network=network.name,
                    init=True,
                    cap_drop=["ALL"],
                    detach=True,
                )
            )
        next(iter(containers[0].logs(stream=True)))  # `ready`
        yield containers[1]
    finally:
        for container in containers:
            container.remove(force=True)
        network.remove()


@pytest.fixture
def shaped(docker_containers: Containers, helper_image: str) -> Shape:
    """Puts the network of a container of the tests' own in force."""

    def shape_one(container: Container, network: Network | None) -> None:
        there = docker_containers.named(str(container.name))
        assert there is not None
        shape(docker_containers, helper_image, [(there, network)])

    return shape_one


@pytest.fixture
def transfer(client: Container) -> Transfer:
    def run(way: str, size: int) -> float:
        done = client.exec_run(["python", "-c", CLIENT, way, str(size), f"{NETWORK}-server"])
        output = cast("bytes", done.output)
        assert done.exit_code == 0, output.decode()
        print(f"{way}, {size} bytes: {float(output):.3f} s")
        return float(output)

    return run


@pytest.mark.docker
def test_a_model_takes_what_it_should_each_way(
    client: Container, transfer: Transfer, shaped: Shape
) -> None:
    shaped(client, Network(down=RATE, up=RATE))
    for way in ("up", "down"):
        for size in (9 * MB, MB):
            assert transfer(way, size) == pytest.approx(due(size, RATE), rel=0.1)


@pytest.mark.docker
def test_another_network_takes_the_place_of_the_last_and_none_is_no_limit(
    client: Container, transfer: Transfer, shaped: Shape
) -> None:
    def seconds(network: Network | None, way: str) -> float:
        shaped(client, network)
        return transfer(way, MB)

    assert seconds(Network(down=4e6, up=8e6), "up") == pytest.approx(due(MB, 8e6), rel=0.1)
    assert seconds(Network(down=4e6, up=16e6), "down") == pytest.approx(due(MB, 4e6), rel=0.1)
    assert seconds(Network(up=16e6), "up") == pytest.approx(due(MB, 16e6), rel=0.1)
    assert seconds(Network(up=16e6), "down") < 0.2
    assert seconds(None, "up") < 0.2


@pytest.mark.docker
def test_metrics_go_past_a_transfer_that_fills_the_link(
    client: Container, docker_client: docker.DockerClient, shaped: Shape
) -> None:
    """Else a slow device would be missing in the dashboard whenever it sends its model."""
    shaped(client, Network(down=1e5, up=1e5))
    client.exec_run(["python", "-m", "http.server", str(METRICS_PORT)], workdir="/opt", detach=True)
    send = ["python", "-c", CLIENT, "up", "200000", f"{NETWORK}-server"]
    client.exec_run(send, detach=True)
    server = docker_client.containers.get(f"{NETWORK}-server")
    for _ in range(4):
        time.sleep(2)  # as Prometheus does, which waits for two seconds
        done = server.exec_run(["python", "-c", SCRAPE])
        assert done.exit_code == 0, cast("bytes", done.output).decode()


@pytest.mark.docker
def test_a_restart_takes_it_off_and_it_is_put_on_again(
    client: Container, transfer: Transfer, shaped: Shape
) -> None:
    shaped(client, Network(up=8e6))
    client.restart(timeout=0)
    assert transfer("up", MB) < 0.2
    shaped(client, Network(up=8e6))
    assert transfer("up", MB) == pytest.approx(due(MB, 8e6), rel=0.1)


@pytest.mark.docker
def test_a_link_that_is_down_carries_nothing_until_it_is_up_again(
    client: Container, transfer: Transfer, docker_containers: Containers, helper_image: str
) -> None:
    def switched(*, up: bool) -> None:
        there = docker_containers.named(str(client.name))
        assert there is not None
        switch(docker_containers, helper_image, there, up=up)

    switched(up=False)
    with pytest.raises(AssertionError, match="unreachable"):
        transfer("up", MB)
    switched(up=True)
    assert transfer("up", MB) < 0.2


@pytest.mark.docker
def test_the_host_and_what_has_ended_are_not_shaped(
    client: Container, docker_client: docker.DockerClient, shaped: Shape, helper_image: str
) -> None:
    host = docker_client.containers.run(
        helper_image, ["sleep", "infinity"], network_mode="host", init=True, detach=True
    )
    try:
        with pytest.raises(DockerError, match="has the host's network, which is not shaped"):
            shaped(host, Network(up=RATE))
    finally:
        host.remove(force=True)
    client.kill()
    with pytest.raises(DockerError, match=f"{NETWORK}-client is not running"):
        shaped(client, Network(up=RATE))


@pytest.mark.docker
def test_delay_is_added_each_way_where_the_kernel_can(
    client: Container, docker_containers: Containers, shaped: Shape, helper_image: str
) -> None:
    network = Network(down=RATE, up=RATE, delay=0.05)
    capabilities = probe(docker_containers, helper_image)
    if not capabilities.netem:
        assert unapplied(network, capabilities)
        pytest.skip("this kernel has no netem")
    shaped(client, network)
    connect = (
        "import socket, time; start = time.monotonic();"
        f"socket.create_connection(('{NETWORK}-server', 9000));"
        "print(time.monotonic() - start)"
    )
    output = cast("bytes", client.exec_run(["python", "-c", connect]).output)
    assert 0.1 <= float(output) < 0.2


ALL = Capabilities(tbf=True, ifb=True, netem=True)
DSL = Network(down=16e6, up=1e6, delay=0.01, jitter=0.005, loss=0.002)


def test_the_helper_lets_the_port_pass_that_a_client_is_scraped_on() -> None:
    assert METRICS_PORT == helper_shape.METRICS_PORT


def test_a_slower_federation_has_a_slower_network() -> None:
    slow = dilated(DSL, Dilation(4))
    assert (slow.down, slow.up) == (4e6, 250e3)
    assert (slow.delay, slow.jitter, slow.loss) == (0.04, 0.02, 0.002)
    assert dilated(Network(), Dilation(4)) == Network()


@pytest.mark.parametrize(
    ("network", "capabilities", "notes"),
    [
        (DSL, ALL, []),
        (Network(), Capabilities(tbf=False, ifb=False, netem=False), []),
        (Network(up=1e6), Capabilities(tbf=True, ifb=False, netem=False), []),
        (
            DSL,
            Capabilities(tbf=True, ifb=True, netem=False),
            ["delay 10 ms, jitter 5 ms, loss 0.2% are not applied: this kernel has no netem"],
        ),
        (
            Network(down=16e6, delay=0.01),
            Capabilities(tbf=True, ifb=False, netem=True),
            [
                "down 16 Mbit/s is not applied: this kernel has no ifb",
                "delay 10 ms is not applied to what arrives: this kernel has no ifb",
            ],
        ),
        (
            Network(down=16e6, up=1e6),
            Capabilities(tbf=False, ifb=True, netem=True),
            [
                "down 16 Mbit/s is not applied: this kernel has no tbf or htb",
                "up 1 Mbit/s is not applied: this kernel has no tbf or htb",
            ],
        ),
    ],
)
def test_what_a_kernel_cannot_do_is_said(
    network: Network, capabilities: Capabilities, notes: list[str]
) -> None:
    assert unapplied(network, capabilities) == notes
