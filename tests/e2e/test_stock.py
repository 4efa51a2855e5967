"""Flower's own node on a real federation, which is taken down at the end."""

from __future__ import annotations

import json

import docker
import pytest
from harness import ROOT, SET_PORTS, Done, fedbench, leftovers, run, run_id, summary, text

pytestmark = pytest.mark.docker


@pytest.fixture(scope="module")
def stock_run(clean: docker.DockerClient, tmp_path_factory: pytest.TempPathFactory) -> Done:
    """A round on a pair of stock nodes; it replaces the federation that was up before.

    They import torch for each message: fast devices do that sooner.
    """
    pair = tmp_path_factory.mktemp("stock") / "pair.yaml"
    pair.write_text("machines: [{device: laptop-cpu, count: 2}]\n")
    return run(
        "make", "up", f"PROFILE={pair}", "EXPERIMENT=noop",
        SET=f"{SET_PORTS} node=stock rounds=1", timeout=1800,
    )  # fmt: skip


def test_the_stock_node_runs_a_round(stock_run: Done) -> None:
    assert stock_run.code == 0
    clients = summary(run_id(stock_run.output))["rounds"][0]["clients"]
    assert [client["client"] for client in clients] == ["laptop-cpu-1", "laptop-cpu-2"]
    assert [client["error"] for client in clients] == [None, None]


def test_down_leaves_nothing_but_the_runs(stock_run: Done, clean: docker.DockerClient) -> None:
    """It comes last: the federation is gone then."""
    name = run_id(stock_run.output)
    assert fedbench("down", "--volumes").code == 0
    assert leftovers(clean) == []
    assert "no federation is up" in fedbench("status").output
    lines = [json.loads(line) for line in text(ROOT / f"runs/{name}/logs.jsonl").splitlines()]
    last = [line["message"] for line in lines if line.get("run") == name]
    assert last.count("finished") == 1
