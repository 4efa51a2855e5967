from __future__ import annotations

import asyncio
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from flwr.app import ConfigRecord, Message, MessageType, RecordDict
from prometheus_client import CollectorRegistry, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from fedbench.flower.messages import is_from_a_lost_node
from fedbench.flower.superlink import sign_off
from fedbench.records import ClientRound, RoundRecord, pacing
from fedbench.records.facts import RunFacts
from fedbench.records.pacing import Pacing
from fedbench.server import superlink as superlinks
from fedbench.server.execution import executions
from fedbench.server.grid import PromptGrid
from fedbench.server.public_app import public_app
from fedbench.server.registry import Registry
from fedbench.server.superlink import observe, operations_app
from fedbench.telemetry.server import ServerMetrics
from fedbench.wire import Announcement, Offer

ANNOUNCEMENT = {"client": "pc", "device": "legacy-pc", "instance": "i1", "metrics_port": 9101}
CLIENTS = "/fedbench/v1/clients"
STARTED = {
    "event": "started",
    "experiment": {"name": "digits", "model": "mobilenet_v2", "rounds": 3},
    "data": "digits-1",
    "profile": "pair",
}
RECORD = RoundRecord(
    round=2,
    started_at="2026-11-23T12:00:00.000+00:00",
    server_accuracy=0.75,
    server_loss=1.5,
    server_epoch_seconds=0.25,
    duration_seconds=3.5,
    overhead_seconds=0.5,
    aggregate_seconds=0.125,
    clients=[
        ClientRound(client="laptop", device="laptop"),
        ClientRound(client="pc", device="legacy-pc", error="train: out of memory"),
        ClientRound(client="nas", device="very-old-pc", error="train: no answer", late=True),
    ],
)


class Peer:
    """Somebody who talks to an application, from an address."""

    def __init__(self, app: Any, host: str) -> None:
        self._transport = httpx.ASGITransport(app, client=(host, 40_000))

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        async def send() -> httpx.Response:
            async with httpx.AsyncClient(transport=self._transport) as client:
                return await client.request(method, f"https://server:9092{path}", **options)

        return asyncio.run(send())

    def get(self, path: str) -> httpx.Response:
        return self.request("GET", path)

    def post(self, path: str, **options: Any) -> httpx.Response:
        return self.request("POST", path, **options)

    def delete(self, path: str) -> httpx.Response:
        return self.request("DELETE", path)


@pytest.fixture
def signed_off() -> list[int]:
    return []


@pytest.fixture
def registry(signed_off: list[int]) -> Registry:
    return Registry(signed_off.append)


@pytest.fixture
def devices(registry: Registry) -> Peer:
    """What a device can do, with a SuperLink that tells whatever reaches it."""

    async def reached(request: Request) -> Response:
        return PlainTextResponse(f"superlink {request.url.path}")

    superlink = Starlette(routes=[Route("/{path:path}", reached, methods=["GET", "POST"])])
    return Peer(public_app(superlink, registry), "10.0.0.7")


@pytest.fixture
def metrics_registry() -> CollectorRegistry:
    return CollectorRegistry()


async def start(folder: str) -> str | None:
    """A run completes unless its folder says otherwise."""
    return "it broke" if folder.endswith("bad") else None


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folders of two runs, of which one breaks."""
    monkeypatch.setattr(executions, "AGAIN_SECONDS", 0)
    for name in ("r1", "bad"):
        (tmp_path / name).mkdir()
        facts = RunFacts(run=name, experiment="e", profile="p", created="2026-01-02T03:04:05Z")
        facts.write(tmp_path / name)
    return tmp_path


@pytest.fixture
def operations(registry: Registry, metrics_registry: CollectorRegistry) -> Peer:
    app = operations_app(registry, ServerMetrics(metrics_registry), metrics_registry, start)
    return Peer(app, "127.0.0.1")


@pytest.mark.parametrize("name", ["register-node", "pull-messages", "push-object"])
def test_devices_reach_the_fleet_routes(devices: Peer, name: str) -> None:
    assert devices.post(f"/v1/fleet/{name}").text == f"superlink /v1/fleet/{name}"


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/health",
        "/docs",
        "/openapi.json",
        "/v1",
        "/v1/fleet",
        "/v1/control/start-run",
        "/v1/control/stop-run",
        "/v1/runtime/acquire-task",
        "/v1/runtime/push-messages",
        "//v1/control/start-run",
        "/V1/fleet/pull-messages",
        "/v1/fleetless/x",
        "/metrics",
        "/events",
        "/targets",
        "/runs",
        "/fedbench/v1",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_devices_reach_nothing_else(devices: Peer, method: str, path: str) -> None:
    answer = devices.request(method, path)

    assert answer.status_code == 404
    assert "superlink" not in answer.text


def test_a_device_announces_itself_by_the_address_the_server_sees(
    devices: Peer, registry: Registry
) -> None:
    answer = devices.post(CLIENTS, json=ANNOUNCEMENT)

    assert answer.status_code == 200
    assert registry.targets() == [
        {"targets": ["10.0.0.7:9101"], "labels": {"client": "pc", "device": "legacy-pc"}}
    ]


def test_prometheus_targets_follow_who_joins_and_who_leaves(
    devices: Peer, operations: Peer
) -> None:
    def clients() -> list[str]:
        return [target["labels"]["client"] for target in operations.get("/targets").json()]

    assert clients() == []
    devices.post(CLIENTS, json=ANNOUNCEMENT)
    devices.post(CLIENTS, json=ANNOUNCEMENT | {"client": "visitor", "instance": "i2"})
    assert clients() == ["pc", "visitor"]
    devices.delete(f"{CLIENTS}/visitor/i2")
    assert clients() == ["pc"]


@pytest.mark.parametrize(
    "body", [b"", b"null", b"{", b'{"client": "pc"}', b'{"client": "../etc", "device": "x"}']
)
def test_an_announcement_that_says_too_little_is_refused(
    devices: Peer, registry: Registry, body: bytes
) -> None:
    answer = devices.post(CLIENTS, content=body)

    assert answer.status_code == 422
    assert "Announcement" in answer.json()["error"]
    assert registry.targets() == []


def test_a_name_is_taken_until_its_owner_says_goodbye(devices: Peer, registry: Registry) -> None:
    devices.post(CLIENTS, json=ANNOUNCEMENT)
    other = ANNOUNCEMENT | {"instance": "i2"}

    assert devices.post(CLIENTS, json=ANNOUNCEMENT).status_code == 200
    assert devices.post(CLIENTS, json=other).status_code == 409
    assert devices.delete(f"{CLIENTS}/pc/i2").status_code == 200
    assert devices.post(CLIENTS, json=other).status_code == 409
    assert devices.delete(f"{CLIENTS}/pc/i1").status_code == 200
    assert registry.targets() == []
    assert devices.post(CLIENTS, json=other).status_code == 200


ENDING = {"exit_code": -9, "killed_for_memory": True, "memory_limit": 512 * 2**20}


def test_a_client_that_died_is_reported_and_the_run_can_ask_why(
    devices: Peer, operations: Peer, registry: Registry, signed_off: list[int]
) -> None:
    devices.post(CLIENTS, json=ANNOUNCEMENT | {"node_id": 77})
    assert operations.get("/lost/77/pc").json() == {"reason": None}

    assert devices.post(f"{CLIENTS}/pc/i1/ending", json=ENDING).status_code == 200

    assert signed_off == [77]
    assert operations.get("/lost/77/pc").json() == {
        "reason": "killed for memory: its limit is 512 MiB (device legacy-pc)"
    }
    other = ANNOUNCEMENT | {"instance": "i2", "node_id": 78}
    assert devices.post(CLIENTS, json=other).status_code == 200


@pytest.mark.parametrize("path", ["pc/i2", "laptop/i1", "pc/%2e%2e"])
def test_a_device_reports_the_end_of_none_but_itself(
    devices: Peer, registry: Registry, signed_off: list[int], path: str
) -> None:
    devices.post(CLIENTS, json=ANNOUNCEMENT | {"node_id": 77})

    assert devices.post(f"{CLIENTS}/{path}/ending", json=ENDING).status_code == 404
    assert len(registry.targets()) == 1
    assert signed_off == []


@pytest.mark.parametrize("body", [b"", b"null", b"{}", b'{"exit_code": "x"}'])
def test_an_ending_that_says_too_little_is_refused(
    devices: Peer, signed_off: list[int], body: bytes
) -> None:
    devices.post(CLIENTS, json=ANNOUNCEMENT | {"node_id": 77})

    assert devices.post(f"{CLIENTS}/pc/i1/ending", content=body).status_code == 422
    assert signed_off == []


def test_a_node_that_is_signed_off_is_answered_for_at_once(superlink: Any) -> None:
    dead, alive = superlink.join(), superlink.join()
    content = RecordDict({"config": ConfigRecord({"round": 3})})
    questions = [Message(content, node, MessageType.TRAIN) for node in (dead, alive)]
    with closing(PromptGrid(superlink.grid, lambda: False)) as grid:
        answers = grid.exchange(questions, 60)
        sign_off(superlink.app, dead)
        node, reply = next(answers)

        assert node == dead
        assert is_from_a_lost_node(reply)
        assert grid.node_ids() == [alive]
    sign_off(superlink.app, 12345)  # a node that was never there


def test_devices_cannot_list_the_clients(devices: Peer) -> None:
    assert devices.get(CLIENTS).status_code == 405


def test_what_there_is_to_join_is_said_once_a_run_started(devices: Peer, operations: Peer) -> None:
    assert devices.get("/fedbench/v1/run").status_code == 404

    operations.post("/events", json={"run": "r1"} | STARTED)

    answer = devices.get("/fedbench/v1/run")
    assert answer.status_code == 200
    assert Offer.model_validate_json(answer.content) == Offer.model_validate(STARTED)
    assert answer.json()["data"] == "digits-1"


@pytest.mark.parametrize(("name", "completed"), [("r1", True), ("bad", False)])
def test_a_run_is_started_and_its_end_waited_for(
    operations: Peer, name: str, completed: bool, runs: Path
) -> None:
    answer = operations.post("/runs", json={"folder": str(runs / name)})

    assert answer.json() == {"completed": completed}


def test_while_a_run_goes_on_its_folder_says_how_the_clients_keep_their_pace(
    registry: Registry, metrics_registry: CollectorRegistry, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(superlinks, "PACING_SECONDS", 0.01)
    seen: list[dict[str, Pacing]] = []

    async def watch(folder: str) -> str | None:
        for wall in (1.0, 2.0):
            pace = Pacing(wall=wall, training=wall, cpu=wall, late=0)
            said = Announcement(
                client="laptop", device="laptop", instance="i", metrics_port=9101, pacing=pace
            )
            registry.announce(said, "10.0.0.7")
            while (read := pacing.read(Path(folder))) != {"laptop": pace}:
                await asyncio.sleep(0.01)
            seen.append(read)
        return None

    app = operations_app(registry, ServerMetrics(metrics_registry), metrics_registry, watch)
    Peer(app, "127.0.0.1").post("/runs", json={"folder": str(tmp_path)})
    assert [read["laptop"].wall for read in seen] == [1, 2]
    assert list(tmp_path.iterdir()) == [], "a run that ended has no pace"


LOCAL = ("127.0.0.1", 40_000)
ROUND = {"event": "round", "round": 1, "rounds": 3, "clients": []}


@pytest.mark.parametrize(
    ("said", "phase"),
    [
        ([], "failed"),
        ([STARTED], "failed"),
        ([STARTED, {"event": "waiting"}], "failed"),
        ([STARTED, ROUND], "failed"),
        ([STARTED, ROUND, {"event": "stopped"}], "interrupted"),
        ([STARTED, ROUND, {"event": "error", "reason": "x"}], "failed"),
    ],
)
def test_a_run_whose_server_app_died_without_a_word_failed(
    registry: Registry,
    metrics_registry: CollectorRegistry,
    said: list[dict[str, Any]],
    phase: str,
    runs: Path,
) -> None:
    async def say(folder: str) -> str | None:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app, client=LOCAL)) as client:
            for event in said:
                await client.post("https://server/events", json={"run": "bad"} | event)
        return "the ServerApp died (SIGKILL)"

    app = operations_app(registry, ServerMetrics(metrics_registry), metrics_registry, say)
    operations = Peer(app, "127.0.0.1")
    operations.post("/events", json={"run": "r0", "event": "waiting"})
    operations.post("/runs", json={"folder": str(runs / "bad")})

    text = operations.get("/metrics").text
    on = [line for line in text.splitlines() if "run_phase{" in line and line.endswith(" 1.0")]
    assert on == [f'fedbench_run_phase{{phase="{phase}",run="bad"}} 1.0']
    assert "\nfedbench_progress_timestamp_seconds{" not in text


def test_a_run_that_completed_is_as_it_said(operations: Peer, runs: Path) -> None:
    for event in (STARTED, ROUND, {"event": "finished"}):
        operations.post("/events", json={"run": "r1"} | event)
    operations.post("/runs", json={"folder": str(runs / "r1")})

    assert 'run_phase{phase="finished",run="r1"} 1.0' in operations.get("/metrics").text


OUTSIDERS = ["10.0.0.7", "::1", "172.18.0.1"]


@pytest.mark.parametrize("host", OUTSIDERS)
def test_runs_are_started_from_inside_the_server_only(
    registry: Registry, metrics_registry: CollectorRegistry, host: str
) -> None:
    async def refuse(folder: str) -> str | None:
        raise AssertionError(folder)

    app = operations_app(registry, ServerMetrics(metrics_registry), metrics_registry, refuse)

    assert Peer(app, host).post("/runs", json={"folder": "/runs/r1"}).status_code == 403


@pytest.mark.parametrize("host", OUTSIDERS)
def test_what_became_of_clients_is_for_the_server_only(
    registry: Registry, metrics_registry: CollectorRegistry, host: str
) -> None:
    app = operations_app(registry, ServerMetrics(metrics_registry), metrics_registry, start)

    assert Peer(app, host).get("/lost/77/pc").status_code == 403


@pytest.mark.parametrize("host", OUTSIDERS)
def test_events_come_from_inside_the_server_only(
    registry: Registry, metrics_registry: CollectorRegistry, host: str
) -> None:
    app = operations_app(registry, ServerMetrics(metrics_registry), metrics_registry, start)
    outsider = Peer(app, host)
    started = {"run": "r1", "event": "started", "experiment": {}, "data": "d"}

    assert outsider.post("/events", json=started).status_code == 403
    assert registry.run is None


def test_prometheus_finds_targets_and_metrics(operations: Peer, devices: Peer) -> None:
    devices.post(CLIENTS, json=ANNOUNCEMENT)

    assert operations.get("/targets").json()[0]["targets"] == ["10.0.0.7:9101"]
    answer = operations.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")
    assert "fedbench_clients_connected 1.0" in answer.text


def test_events_become_metrics_over_http(operations: Peer) -> None:
    event = {"run": "r1", "event": "recorded", "rounds": 3, "record": RECORD.model_dump()}

    assert operations.post("/events", json=event).status_code == 200
    assert 'fedbench_server_accuracy{run="r1"} 0.75' in operations.get("/metrics").text


def test_a_loss_that_is_no_number_passes(operations: Peer) -> None:
    body = '{"run": "r1", "event": "trained", "client": "pc", "loss": NaN}'

    assert operations.post("/events", content=body).status_code == 200


def samples(*events: dict[str, Any]) -> str:
    registry = CollectorRegistry()
    metrics = ServerMetrics(registry)
    for event in events:
        observe(metrics, {"run": "r1"} | event)
    return generate_latest(registry).decode()


@pytest.mark.parametrize(
    ("event", "phase"),
    [
        ({"event": "waiting", "connected": [], "needed": 2}, "waiting"),
        ({"event": "round", "round": 1, "rounds": 3, "clients": []}, "running"),
        ({"event": "finished"}, "finished"),
        ({"event": "stopped"}, "interrupted"),
        ({"event": "error", "reason": "x"}, "failed"),
    ],
)
def test_the_phase_of_a_run_is_the_one_its_event_says(event: dict[str, Any], phase: str) -> None:
    text = samples({"event": "waiting"}, event)

    on = [line for line in text.splitlines() if "run_phase{" in line and line.endswith(" 1.0")]
    assert on == [f'fedbench_run_phase{{phase="{phase}",run="r1"}} 1.0']


def test_a_round_and_its_record_are_in_the_metrics() -> None:
    text = samples(
        {"event": "round", "round": 2, "rounds": 3, "clients": ["laptop", "pc"]},
        {"event": "recorded", "rounds": 3, "record": RECORD.model_dump()},
    )

    for line in (
        'fedbench_round{run="r1"} 2.0',
        'fedbench_rounds{run="r1"} 3.0',
        'fedbench_server_loss{run="r1"} 1.5',
        'fedbench_round_last_seconds{run="r1"} 3.5',
        'fedbench_clients_answered{run="r1"} 1.0',
        'fedbench_clients_failed{run="r1"} 1.0',
        'fedbench_clients_late{run="r1"} 1.0',
    ):
        assert line in text.splitlines()


def test_a_run_says_what_it_is_of() -> None:
    labels = 'experiment="digits",model="mobilenet_v2",profile="pair",run="r1"'

    assert f"fedbench_run_info{{{labels}}} 1.0" in samples(STARTED).splitlines()


REPLIES = [
    {"event": name, "round": 1, "client": "pc"} for name in ("trained", "evaluated", "failed")
]


@pytest.mark.parametrize("event", [STARTED, *REPLIES], ids=lambda event: str(event["event"]))
def test_a_sign_of_progress_is_remembered_until_the_run_ends(event: dict[str, Any]) -> None:
    before = time.time()
    (line,) = [row for row in samples(event).splitlines() if row.startswith("fedbench_progress")]

    assert before <= float(line.split()[-1]) <= time.time()
    assert "\nfedbench_progress" not in samples(event, {"event": "finished"})


@pytest.mark.parametrize("event", ["left_out", "incomplete"])
def test_other_events_are_not_the_metrics_business(event: str) -> None:
    assert samples({"event": event}) == samples()
