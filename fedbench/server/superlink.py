"""Flower's SuperLink and fedbench's own two listeners, in one process.

Three listeners share one event loop:

- 127.0.0.1:8000  SuperLink whole, for the ServerApp and `flwr` in this container only: whoever
  reaches its control routes can ship code to every node;
- 0.0.0.0:9092    TLS, for devices: SuperLink's `/v1/fleet/*`, the clients'
  announcements, and what run there is to join;
- 0.0.0.0:9100    for Prometheus and the health check: metrics and scrape targets.

SuperLink's application factory is internal to Flower: pinned, and guarded by a contract test.
"""

from __future__ import annotations

import asyncio
import ssl
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI
from flwr.superlink.cli.flower_superlink import SuperLinkLifespan, _parse_superlink_lifespan_config
from flwr.superlink.main import create_app
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from fedbench.flower.bundles import FLEET_PULL, FLEET_PUSH, RUNTIME_PULL, RUNTIME_PUSH
from fedbench.records import ENDINGS, RoundRecord, pacing
from fedbench.server import executor
from fedbench.server.bundles import Bundles
from fedbench.server.census import Census
from fedbench.server.control import Control
from fedbench.server.longpoll import LongPoll
from fedbench.server.public_app import public_app
from fedbench.server.registry import Registry
from fedbench.telemetry.cgroup import Cgroup
from fedbench.telemetry.collectors import CgroupCollector
from fedbench.telemetry.server import ServerMetrics

_EVERYWHERE = "0.0.0.0"  # noqa: S104 (of the container; compose publishes only the fleet port)
# What a poll waits for: a node for the ServerApp's messages, the ServerApp for replies, the
# executor for runs.
_NEWS = {
    FLEET_PULL: RUNTIME_PUSH,
    RUNTIME_PULL: FLEET_PUSH,
    "/v1/runtime/acquire-task": "/v1/control/start-run",
}
# A client's connection survives the training of a round: a handshake costs a slow device a while.
IDLE_SECONDS = 3600
PACING_SECONDS = 1.0  # clients say something new every five
_REFUSED = JSONResponse({"error": "only from inside the server"}, status_code=403)
_QUIET: dict[str, Any] = {
    "ws": "none",
    "log_config": None,  # its records are this process's
    "access_log": False,
    "timeout_graceful_shutdown": 3,
}


@dataclass(frozen=True)
class Ports:
    """Where the listeners are: as the compose project has them, unless it is no container."""

    control: int = 8000
    fleet: int = 9092
    operations: int = 9100


PORTS = Ports()


def serve(tls: Path, ports: Ports = PORTS) -> None:
    """Runs until the process is told to stop. `tls` holds server.pem and server.key."""
    flower = _flower(ports.control)
    superlink = LongPoll(Bundles(flower), _NEWS)
    registry = Registry(partial(sign_off, flower))
    metrics_registry = CollectorRegistry()
    metrics = ServerMetrics(metrics_registry)
    metrics_registry.register(CgroupCollector(Cgroup()))
    metrics_registry.register(Census(registry))
    control = uvicorn.Config(superlink, "127.0.0.1", ports.control, **_QUIET)
    fleet = uvicorn.Config(
        public_app(superlink, registry),
        _EVERYWHERE,
        ports.fleet,
        lifespan="off",
        **_QUIET,
        timeout_keep_alive=IDLE_SECONDS,
        ssl_certfile=tls / "server.pem",
        ssl_keyfile=tls / "server.key",
        ssl_version=ssl.PROTOCOL_TLS_SERVER,
    )
    operations = uvicorn.Config(
        operations_app(
            registry, metrics, metrics_registry, Control(ports.control, ports.operations).run
        ),
        _EVERYWHERE,
        ports.operations,
        lifespan="off",
        **_QUIET,
    )
    servers = [uvicorn.Server(config) for config in (control, fleet, operations)]
    with executor.running(f"127.0.0.1:{ports.control}"):
        asyncio.run(_serve_all(servers))


async def _serve_all(servers: list[uvicorn.Server]) -> None:
    # When one of them stops (a signal, a port that is taken), the others have no purpose.
    tasks = [asyncio.create_task(server.serve()) for server in servers]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for server in servers:
        server.should_exit = True
    await asyncio.gather(*tasks)


def _flower(port: int) -> FastAPI:
    # Its state stays in memory: a database file made a round 1.8 times as long.
    sys.argv = [
        "flower-superlink", "--insecure", "--host", "127.0.0.1", "--port", str(port),
        "--disable-runtime-dependency-installation", "--isolation", "process",
    ]  # fmt: skip
    return create_app(_parse_superlink_lifespan_config(), SuperLinkLifespan)


def sign_off(flower: FastAPI, node_id: int) -> None:
    """Has a node that died for gone, as if it had said so: SuperLink answers in its place."""
    flower.state.linkstate_factory.state().deactivate_node(node_id)


def operations_app(
    registry: Registry,
    metrics: ServerMetrics,
    metrics_registry: CollectorRegistry,
    start: Callable[[str], Awaitable[bool]],
) -> Starlette:
    """Metrics and scrape targets; the ServerApp, a process of its own, reports its rounds here.

    It asks as well what became of nodes that it lost. `start` runs what is in a folder, and says
    whether that completed.
    """

    async def targets(_: Request) -> Response:
        live = registry.targets()
        metrics.clients_connected(len(live))
        return JSONResponse(live)

    async def exposition(_: Request) -> Response:
        return Response(generate_latest(metrics_registry), media_type=CONTENT_TYPE_LATEST)

    async def events(request: Request) -> Response:
        if _from_outside(request):
            return _REFUSED
        event = await request.json()
        observe(metrics, event)
        if event["event"] == "started":
            registry.run = {"experiment": event["experiment"], "data": event["data"]}
        return JSONResponse({})

    async def lost(request: Request) -> Response:
        if _from_outside(request):
            return _REFUSED
        return JSONResponse({"reason": registry.reason(**request.path_params)})

    async def runs(request: Request) -> Response:
        if _from_outside(request):
            return _REFUSED
        folder = (await request.json())["folder"]
        writing = asyncio.create_task(_write_pacing(registry, Path(folder)))
        try:
            completed = await start(folder)
        finally:
            writing.cancel()
            (Path(folder) / pacing.FILE).unlink(missing_ok=True)
        run = Path(folder).name
        if not completed and not _said_its_end(metrics_registry, run):
            metrics.run_phase(run, "failed")
        return JSONResponse({"completed": completed})

    return Starlette(
        routes=[
            Route("/targets", targets),
            Route("/events", events, methods=["POST"]),
            Route("/lost/{node_id:int}/{client}", lost),
            Route("/runs", runs, methods=["POST"]),
            Route("/metrics", exposition),
        ]
    )


async def _write_pacing(registry: Registry, folder: Path) -> None:
    """Write what the clients say of their pace into the run's folder, until cancelled."""
    before = None
    while True:
        said = registry.pacing()
        if said != before and folder.is_dir():
            with suppress(OSError):  # of a full disk the run itself will say
                pacing.write(folder, said)
            before = said
        await asyncio.sleep(PACING_SECONDS)


def _said_its_end(metrics_registry: CollectorRegistry, run: str) -> bool:
    """Whether the ServerApp did: one that was killed could not."""
    return any(
        metrics_registry.get_sample_value("fedbench_run_phase", {"run": run, "phase": phase})
        for phase in ENDINGS.values()
    )


def _from_outside(request: Request) -> bool:
    return request.client is None or request.client.host != "127.0.0.1"


def observe(metrics: ServerMetrics, event: dict[str, Any]) -> None:
    """Puts an event of a run into the metrics."""
    run = event["run"]
    match event["event"]:
        case "started":
            experiment = event["experiment"]
            metrics.run_started(
                run,
                experiment=experiment["name"],
                profile=event["profile"],
                model=experiment["model"],
            )
        case "trained" | "evaluated" | "failed":
            metrics.progressed(run)
        case "round":
            metrics.run_phase(run, "running")
            metrics.round_started(run, event["round"], event["rounds"])
        case "recorded":
            metrics.observe(RoundRecord.model_validate(event["record"]), run, event["rounds"])
        case "waiting" | "finished" as phase:
            metrics.run_phase(run, phase)
        case "stopped":
            metrics.run_phase(run, "interrupted")
        case "error":
            metrics.run_phase(run, "failed")
