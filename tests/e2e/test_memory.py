"""Clients that need more memory than their device has: real Docker, a real kernel's kills."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest
from harness import (
    METRICS_PORT,
    PORTS,
    PROJECT,
    ROOT,
    SET_PORTS,
    Done,
    fedbench,
    run_id,
    summary,
    until,
)

from fedbench.host.watch.prometheus import Prometheus

pytestmark = pytest.mark.docker

# Enough to connect. MobileNetV2 needs several times as much for such a batch: the kernel cannot
# save it by dropping pages of libraries.
LIMIT = 400 * 2**20
LARGE = "--set=batch_size=512"
SMALL = """
description: A device that is too small
cores: 1
memory: 400MiB
"""
REASON = "killed for memory: its limit is 400 MiB (device {})"
# Flower alone finds a dead node out after 33 seconds or more.
FLOWER_SECONDS = 33


@pytest.fixture(scope="module")
def small_run(clean: docker.DockerClient) -> Iterator[Done]:
    """A run on two clients, of which one has lost most of its memory."""
    ports = [f"--set={setting}" for setting in SET_PORTS.split()]
    try:
        up = fedbench(
            "up", "legacy-pair", "--experiment=noop", "--set=rounds=1", *ports, timeout=1800
        )
        assert up.code == 0
        small = clean.containers.get(f"{PROJECT}-legacy-pc-2-1")
        small.update(mem_limit=LIMIT, memswap_limit=LIMIT)
        yield fedbench("run", "--set=rounds=3", "--set=local_epochs=2", LARGE)
    finally:
        fedbench("down", "--volumes")


def rounds(name: str) -> list[dict[str, Any]]:
    """Each round: what became of each client, by name."""
    records = summary(name)["rounds"]
    return [{c["client"]: c["error"] for c in record["clients"]} for record in records]


def test_every_round_goes_on_without_the_client_that_was_killed(small_run: Done) -> None:
    assert small_run.code == 0
    name = run_id(small_run.output)
    result = summary(name)

    assert result["status"] == "finished"
    assert all(record["duration_seconds"] < FLOWER_SECONDS for record in result["rounds"])
    assert [clients["legacy-pc-1"] for clients in rounds(name)] == [None] * 3
    errors = [clients["legacy-pc-2"] for clients in rounds(name) if "legacy-pc-2" in clients]
    assert set(errors) == {f"train: {REASON.format('legacy-pc')}"}
    assert len(errors) > 1, "it did not come back"


def test_the_kill_is_told_as_it_happens_and_afterwards(small_run: Done) -> None:
    name = run_id(small_run.output)
    lines = (ROOT / "runs" / name / "events.jsonl").read_text().splitlines()
    failed = [event for event in map(json.loads, lines) if event["event"] == "failed"]

    reason = REASON.format("legacy-pc")
    assert {(event["client"], event["reason"]) for event in failed} == {("legacy-pc-2", reason)}
    assert f"round 1: legacy-pc-2 failed: {reason}" in small_run.output
    assert f"- round 1: legacy-pc-2: train: {reason}" in fedbench("report", name).output


def test_the_kill_stays_to_be_seen(small_run: Done) -> None:
    containers = json.loads(fedbench("status", "--json").output)["containers"]
    killed = {row["service"]: row["killed_for_memory"] for row in containers}
    assert killed.pop("legacy-pc-2")
    assert not any(killed.values())

    prometheus = Prometheus(f"http://127.0.0.1:{PORTS['prometheus']}")
    query = 'fedbench_out_of_memory_kills_total{client="legacy-pc-2"} > 0'
    until(lambda: prometheus.query(query), "the kills in Prometheus")


def test_a_device_that_joined_is_reported_as_well(small_run: Done, tmp_path: Path) -> None:
    device = tmp_path / "small.yaml"
    device.write_text(SMALL)
    settings = ["--set=rounds=60", "--set=local_epochs=1", LARGE]
    name = run_id(fedbench("run", "--detach", *settings).output)
    folder = ROOT / "runs" / name
    until((folder / "rounds.jsonl").exists, "the first round")
    server = f"localhost:{PORTS['server']}"
    joined = fedbench(
        "join", "--server", server, "--device", str(device), "--name", "visitor",
        "--metrics-port", str(METRICS_PORT),
    )  # fmt: skip
    assert joined.code == 0

    def reported() -> bool:
        lines = (folder / "events.jsonl").read_text().splitlines()
        failed = [event for event in map(json.loads, lines) if event["event"] == "failed"]
        return ("visitor", REASON.format("small")) in {
            (event["client"], event["reason"]) for event in failed
        }

    until(reported, "the visitor's end")
    (folder / "stop").touch()
    until((folder / "summary.json").exists, "the run's end")
