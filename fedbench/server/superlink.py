"""Flower's SuperLink and fedbench's own two listeners, in one process.

Three listeners share one event loop:

- 127.0.0.1:8000  SuperLink whole, for the ServerApp and `flwr` in this container only: whoever
  reaches its control routes can ship code to every node;
- 0.0.0.0:9092    TLS, for devices: SuperLink's `/v1/fleet/*`, the clients'
  announcements, and what run there is to join;
- 0.0.0.0:9100    for Prometheus and the health check: metrics and scrape targets.
"""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from fedbench.config.units import parse_bytes
from fedbench.flower import executor, superlink
from fedbench.flower.bundle_server import Bundles
from fedbench.flower.control import Control
from fedbench.flower.executor import Executor
from fedbench.flower.intake import Intake, Limits
from fedbench.flower.longpoll import LongPoll
from fedbench.imports import importing
from fedbench.records import ENDINGS, RoundRecord, pacing
from fedbench.server.execution.executions import BusyError, Executions, Start
from fedbench.server.public_app import Lifelines, public_app
from fedbench.server.registry import Census, Registry
from fedbench.telemetry import logs
from fedbench.telemetry.cgroup import Cgroup
from fedbench.telemetry.collectors import CgroupCollector
from fedbench.telemetry.server import ServerMetrics
from fedbench.wire import Offer

_EVERYWHERE = "0.0.0.0"  # noqa: S104 (of the container; compose publishes only the fleet port)
# A client's connection survives the training of a round: a handshake costs a slow device a while.
IDLE_SECONDS = 3600
EXPIRING_SECONDS = 1.0
PACING_SECONDS = 1.0  # clients say something new every five
WATCH_SECONDS, REVIVING_SECONDS = 0.5, 5.0
_REFUSED = JSONResponse({"error": "only from inside the server"}, status_code=403)
log = logging.getLogger("fedbench.server")
_QUIET: dict[str, Any] = {
    "ws": "none",
    "log_config": None,  # its records are this process's
    "access_log": False,
    "timeout_graceful_shutdown": 3,
}


@dataclass(frozen=True)
class ServerPorts:
    """Where the listeners are: as the compose project has them, unless it is no container."""

    control: int = 8000
    fleet: int = 9092
    operations: int = 9100


PORTS = ServerPorts()
FLOWER_APP = Path(__file__).with_name("flower")
RUNS = Path("/runs")


def serve(tls: Path, ports: ServerPorts = PORTS, runs: Path = RUNS, project: str = "") -> None:
    """Serve until the process is told to stop. `tls` holds server.pem and server.key.

    A run in `runs` that an earlier server of this project was executing goes on.
    """
    flower = superlink.create(ports.control)
    polled = LongPoll(Bundles(flower))
    registry = Registry(
        partial(superlink.sign_off, flower),
        known=partial(superlink.knows, flower),
        pulse=EXPIRING_SECONDS,
    )
    lifelines = Lifelines(registry)
    metrics_registry = CollectorRegistry()
    metrics = ServerMetrics(metrics_registry)
    metrics_registry.register(CgroupCollector(Cgroup()))
    metrics_registry.register(Census(registry))
    control = uvicorn.Config(polled, "127.0.0.1", ports.control, **_QUIET)
    fleet = uvicorn.Config(
        public_app(Intake(polled, flower, limits()), registry, lifelines),
        _EVERYWHERE,
        ports.fleet,
        lifespan="off",
        **_QUIET,
        date_header=False,  # see `public_app.py`
        timeout_keep_alive=IDLE_SECONDS,
        ssl_certfile=tls / "server.pem",
        ssl_keyfile=tls / "server.key",
        ssl_version=ssl.PROTOCOL_TLS_SERVER,
    )
    forget = partial(superlink.forget_nodes, flower)
    with executor.running(f"127.0.0.1:{ports.control}", prepare) as executing:
        start = _starter(ports, executing)
        inside = operations_app(registry, metrics, metrics_registry, start, project)
        operations = uvicorn.Config(inside, _EVERYWHERE, ports.operations, lifespan="off", **_QUIET)
        servers = [uvicorn.Server(config) for config in (control, fleet, operations)]
        executions: Executions = inside.state.executions
        chores = [_expire(registry, forget), _revive(executing), _go_on(servers, executions, runs)]
        asyncio.run(_serve_all(servers, chores, executions, lifelines))


def limits() -> Limits:
    """Return how large a request may be: whoever's model is larger says so.

    Raises:
        ValueError: FEDBENCH_LARGEST_UPDATE is no size.
    """
    largest = os.environ.get("FEDBENCH_LARGEST_UPDATE")
    return Limits(largest=parse_bytes(largest)) if largest else Limits()


def prepare() -> None:
    """Import what a ServerApp needs, and log as this process does."""
    with importing():
        import fedbench.server.app  # noqa: F401

        executor.preload()
    logs.adopt_flower()


def _starter(ports: ServerPorts, executing: Executor) -> Start:
    """Return what runs the ServerApp on a run's folder; it says what happens where metrics are."""
    control = Control(ports.control)
    operations = f"http://127.0.0.1:{ports.operations}"

    async def start(folder: str) -> str | None:
        config = {"folder": folder, "operations": operations}
        return await control.run(FLOWER_APP, config, executing.watch())

    return start


async def _serve_all(
    servers: list[uvicorn.Server],
    chores: list[Coroutine[Any, Any, None]],
    executions: Executions,
    lifelines: Lifelines,
) -> None:
    beside = [asyncio.create_task(chore) for chore in chores]
    # When one of them stops (a signal, a port that is taken), the others have no purpose.
    tasks = [asyncio.create_task(server.serve()) for server in servers]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    await executions.put_down()
    for server in servers:
        server.should_exit = True
    lifelines.release_all()
    await asyncio.gather(*tasks)
    for chore in beside:
        chore.cancel()


async def _go_on(servers: list[uvicorn.Server], executions: Executions, runs: Path) -> None:
    """Go on with the run that was executed before this process, once SuperLink answers."""
    while not all(server.started for server in servers):
        await asyncio.sleep(0.01)
    executions.go_on(runs)


async def _revive(executing: Executor) -> None:
    """Start the executor again where it has died, until cancelled."""
    while True:
        await asyncio.sleep(WATCH_SECONDS)
        if reason := executing.revive():
            log.error("%s: another is started", reason)
            await asyncio.sleep(REVIVING_SECONDS)


async def _expire(registry: Registry, forget: Callable[[], object]) -> None:
    """Give up silent clients, and forget their nodes in time, until cancelled."""
    while True:
        await asyncio.sleep(EXPIRING_SECONDS)
        registry.expire()
        forget()


def operations_app(
    registry: Registry,
    metrics: ServerMetrics,
    metrics_registry: CollectorRegistry,
    start: Start,
    project: str = "",
) -> Starlette:
    """Return the application that has metrics and scrape targets, and hears the ServerApp.

    The ServerApp, a process of its own, says here what happens in its run, and asks what became of
    nodes that it lost. `start` runs what is in a folder, as `Executions` has it, of which
    `state.executions` of the application are those of its runs.
    """
    endings = Endings()

    async def paced(folder: str) -> str | None:
        endings.forget(Path(folder).name)
        writing = asyncio.create_task(_write_pacing(registry, Path(folder)))
        try:
            return await start(folder)
        finally:
            writing.cancel()
            (Path(folder) / pacing.FILE).unlink(missing_ok=True)

    executions = Executions(
        paced, endings.heard_of, lambda run: metrics.run_phase(run, "failed"), project
    )

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
        endings.hear(event)
        observe(metrics, event)
        if event["event"] == "started":
            registry.run = Offer.model_validate(event)
        return JSONResponse({})

    async def lost(request: Request) -> Response:
        if _from_outside(request):
            return _REFUSED
        return JSONResponse({"reason": registry.reason(**request.path_params)})

    async def runs(request: Request) -> Response:
        if _from_outside(request):
            return _REFUSED
        folder = Path((await request.json())["folder"])
        try:
            completed = await executions.execute(folder)
        except BusyError as error:
            return JSONResponse({"error": f"run {error} is in progress"}, status_code=409)
        except OSError as error:
            return JSONResponse({"error": str(error)}, status_code=507)
        return JSONResponse({"completed": completed})

    app = Starlette(
        routes=[
            Route("/targets", targets),
            Route("/events", events, methods=["POST"]),
            Route("/lost/{node_id:int}/{client}", lost),
            Route("/runs", runs, methods=["POST"]),
            Route("/metrics", exposition),
        ]
    )
    app.state.executions = executions
    return app


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


class Endings:
    """Which runs said that they ended: the ServerApp of one that was killed could not."""

    def __init__(self) -> None:
        self._runs: set[str] = set()

    def hear(self, event: Mapping[str, Any]) -> None:
        """Heed an event of a run."""
        if event["event"] in ENDINGS:
            self._runs.add(event["run"])

    def forget(self, run: str) -> None:
        """Forget how a run ended: it starts anew."""
        self._runs.discard(run)

    def heard_of(self, run: str) -> bool:
        """Return whether the run said that it ended."""
        return run in self._runs


def _from_outside(request: Request) -> bool:
    return request.client is None or request.client.host != "127.0.0.1"


def observe(metrics: ServerMetrics, event: dict[str, Any]) -> None:
    """Put an event of a run into the metrics."""
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
