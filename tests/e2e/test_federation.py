"""The federation end to end: real Docker, real Flower, real Prometheus, real images."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from docker.models.containers import Container
from harness import (
    METRICS_PORT,
    PORTS,
    PROJECT,
    ROOT,
    SET_PORTS,
    STATE,
    Done,
    environment,
    fedbench,
    run,
    run_id,
    summary,
    text,
    until,
)
from pictures import write_parquet
from plausibility import History, falls, means, power, shares, speeds
from safetensors.numpy import load_file

from fedbench.host.watch.prometheus import Prometheus
from fedbench.records import RoundParts, quota_corrections, summarise
from fedbench.records.rounds import MISSING
from fedbench.server.registry import HUNG_UP
from fedbench.telemetry.server import RUN_PHASES
from fedbench.telemetry.work import CLIENT_PHASES

pytestmark = pytest.mark.docker

BOARDS = ("federation", "device", "compare", "fidelity", "energy")
CLIENTS = {"workstation", "laptop", "legacy-pc"}
FIELDS = {
    "client", "device", "epoch_seconds", "samples", "local_accuracy", "local_loss", "bytes_sent",
    "bytes_received", "cpu_seconds", "peak_memory_bytes",
}  # fmt: skip

Containers = Callable[[], dict[str, Container]]


class TestFirstRun:
    def test_ends_with_the_tables(self, first_run: Done) -> None:
        assert first_run.code == 0
        for word in (
            "local accuracy", "wall s / local epoch", "emulated s / local epoch",
            "server accuracy", "overhead wall s",
        ):  # fmt: skip
            assert word in first_run.output
        assert f"Prometheus http://127.0.0.1:{PORTS['prometheus']}" in first_run.output

    def test_says_how_the_host_was_divided(self, first_run: Done) -> None:
        dilation = json.loads((STATE / "stack.json").read_text())["dilation"]
        if dilation == 1:
            pytest.skip("a host as large as the profile")
        assert f"emulated seconds are wall seconds / {dilation:g}" in first_run.output

    def test_learns(self, first_run: Done) -> None:
        result = summary(run_id(first_run.output))
        assert result["status"] == "finished"
        assert result["rounds"][-1]["server_accuracy"] > 0.90

    def test_records_every_round_of_every_client(self, first_run: Done) -> None:
        rounds = summary(run_id(first_run.output))["rounds"]
        assert [record["round"] for record in rounds] == list(range(1, len(rounds) + 1))
        for record in rounds:
            assert {client["client"] for client in record["clients"]} == CLIENTS
            assert 0 < record["overhead_seconds"] < record["duration_seconds"]
            for client in record["clients"]:
                assert client.keys() >= FIELDS
                assert all(client[field] for field in FIELDS)
                assert len(client["epoch_seconds"]) == 3
                assert client["error"] is None

    def test_leaves_everything_in_its_folder(self, first_run: Done) -> None:
        folder = ROOT / "runs" / run_id(first_run.output)
        names = {path.name for path in folder.iterdir()}
        assert names >= {
            "experiment.json", "profile.json", "compose.yaml", "rounds.jsonl", "summary.json",
            "model.safetensors", "versions.json",
        }  # fmt: skip
        versions = json.loads((folder / "versions.json").read_text())
        assert versions["flwr"] == "1.42.0"
        weights = load_file(folder / "model.safetensors")
        assert all(np.isfinite(tensor).all() for tensor in weights.values())

    def test_devices_keep_their_order(self, first_run: Done) -> None:
        result = summary(run_id(first_run.output))
        seconds = {
            name: np.median(
                [
                    second
                    for record in result["rounds"]
                    for client in record["clients"]
                    if client["client"] == name
                    for second in client["epoch_seconds"]
                ]
            )
            for name in CLIENTS
        }
        assert seconds["laptop"] < seconds["workstation"] < seconds["legacy-pc"]

    def test_every_epoch_says_what_it_had_of_the_host(self, first_run: Done) -> None:
        result = summary(run_id(first_run.output))
        assert result["dilation"] >= 1
        for record in result["rounds"]:
            for client in record["clients"]:
                assert client["dilation"] == result["dilation"]
                assert client["target_epoch_seconds"] > 0
                assert len(client["epochs"]) == len(client["epoch_seconds"])
                for epoch in client["epochs"]:
                    assert 0 < epoch["cpu_seconds"] < 2 * epoch["seconds"]
                    assert epoch["steal_seconds"] >= 0

    def test_a_governor_watched_over_the_run(self, first_run: Done) -> None:
        folder = ROOT / "runs" / run_id(first_run.output)
        # What the containers logged is kept by the governor, after the run's end.
        assert until((folder / "logs.jsonl").exists, "what the containers logged", 30)
        assert (folder / "governor.log").read_text() == ""
        # There is none where the plan's quotas were right.
        for correction in quota_corrections.read(folder):
            assert correction.computer in CLIENTS
            assert correction.quota_after != correction.quota_before


class TestContainers:
    def test_limits_are_those_of_the_plan(self, containers: Containers) -> None:
        saved = json.loads((STATE / "stack.json").read_text())
        for client in saved["clients"]:
            container = containers()[client["name"]]
            cpus, memory = _limits(container)
            # The governor may have corrected it since.
            assert 0 < cpus <= client["threads"]
            # The kernel keeps limits in whole pages.
            assert client["memory"] - 4096 <= memory <= client["memory"]

    def test_are_not_privileged(self, containers: Containers) -> None:
        for service, container in containers().items():
            attrs = container.attrs
            assert attrs["HostConfig"]["ReadonlyRootfs"], service
            assert attrs["HostConfig"]["CapDrop"] == ["ALL"], service
            assert "docker.sock" not in json.dumps(attrs["Mounts"]), service
            _, uid = container.exec_run(["id", "-u"])
            assert int(uid) != 0, service

    def test_clients_reach_the_fleet_routes_only(self, containers: Containers) -> None:
        probe = (
            "import ssl, sys, urllib.request as u, urllib.error as e\n"
            "context = ssl.create_default_context(cafile='/tls/ca.pem')\n"
            "try: u.urlopen(u.Request(sys.argv[1], data=b''), context=context, timeout=5)\n"
            "except e.HTTPError as error: print(error.code)\n"
            "except OSError as error: print(type(error).__name__)\n"
        )

        def answer(url: str) -> str:
            _, output = containers()["workstation"].exec_run(["python", "-c", probe, url])
            return output.decode().strip()

        assert answer("https://server:9092/v1/control/start-run") == "404"
        assert answer("https://server:9092/v1/runtime/get-nodes") == "404"
        assert answer("https://server:9092/v1/fleet/pull-messages") not in ("404", "URLError")
        assert answer("http://server:8000/v1/control/start-run") == "URLError"
        assert answer("https://pypi.org/") == "URLError"  # no way out of the federation's network


class TestMonitoring:
    @pytest.fixture
    def prometheus(self, first_run: Done) -> Prometheus:
        return Prometheus(f"http://127.0.0.1:{PORTS['prometheus']}")

    def test_answers_for_every_client(self, prometheus: Prometheus, first_run: Done) -> None:
        samples = prometheus.query("fedbench_local_epoch_last_seconds")
        whose = {tuple(s.labels[name] for name in ("client", "device", "run")) for s in samples}
        assert whose == {(name, name, run_id(first_run.output)) for name in CLIENTS}
        assert all(sample.value > 0 for sample in samples)
        (accuracy,) = prometheus.query("fedbench_server_accuracy")
        assert accuracy.labels["role"] == "server"

    def test_scrapes_all(self, prometheus: Prometheus) -> None:
        targets = prometheus.targets()
        assert {(t.client, t.device) for t in targets} == {(c, c) for c in CLIENTS | {""}}
        assert {target.health for target in targets} == {"up"}

    @pytest.mark.parametrize("name", BOARDS)
    def test_fills_every_panel(self, prometheus: Prometheus, first_run: Done, name: str) -> None:
        empty = [
            (panel["title"], target["expr"])
            for panel in _panels(name)
            for target in panel.get("targets", [])
            if not prometheus.query(_filled_in(target["expr"], run_id(first_run.output)))
            and "ALERTS" not in target["expr"]  # none fires in a sound run
        ]
        assert empty == []

    @pytest.mark.parametrize("name", BOARDS)
    def test_opens_on_the_run_and_its_clients(
        self, prometheus: Prometheus, first_run: Done, name: str
    ) -> None:
        run = run_id(first_run.output)
        for variable in _dashboard(name)["templating"]["list"]:
            asked, _, rest = variable["query"].partition("(")
            query = _filled_in(rest.removesuffix(")"), run)
            if asked == "label_values":
                query, _, label = query.rpartition(", ")
                assert {s.labels[label] for s in prometheus.query(query)} == {run}
                continue
            answer = [sample.labels.get("client") for sample in prometheus.query(query)]
            assert set(answer) == ({None} if variable["name"] == "started" else CLIENTS)
            if name == "device" and variable["name"] == "client":
                last = prometheus.query("fedbench_local_epoch_last_seconds")
                slowest = max(last, key=lambda sample: sample.value)
                assert answer[0] == slowest.labels["client"]

    def test_records_every_rule_for_every_client(
        self, prometheus: Prometheus, first_run: Done
    ) -> None:
        recorded = [rule["record"] for rule in _rules() if "record" in rule]
        assert recorded
        for name in recorded:
            assert {s.labels["client"] for s in prometheus.query(name)} == CLIENTS, name

    def test_accepts_every_alert_and_none_fires_in_a_sound_run(
        self, prometheus: Prometheus, first_run: Done
    ) -> None:
        for rule in (rule for rule in _rules() if "alert" in rule):
            prometheus.query(rule["expr"])  # refused if it cannot be evaluated
        speed = "Straggler|ThrottledBeyondPlan"  # those may, on a busy host
        firing = prometheus.query(f'ALERTS{{alertstate="firing", alertname!~"{speed}"}}')
        assert [sample.labels["alertname"] for sample in firing] == []

    @pytest.mark.parametrize("check", [falls, power, speeds, shares, means])
    def test_what_it_has_of_a_run_can_be_true(
        self, prometheus: Prometheus, first_run: Done, check: Callable[[History], Iterator[str]]
    ) -> None:
        history = History(prometheus.url, summarise(ROOT / "runs" / run_id(first_run.output)))
        assert list(check(history)) == []

    def test_no_label_grows_with_rounds(self, prometheus: Prometheus, first_run: Done) -> None:
        """Every value of every label is known before the first round."""
        name = run_id(first_run.output)
        closed = {
            "client": CLIENTS, "device": CLIENTS, "run": {name}, "role": {"server"},
            "job": {"clients", "server"}, "phase": {*CLIENT_PHASES, *RUN_PHASES},
            "part": set(RoundParts.model_fields), "direction": {"sent", "received"},
            "state": {"idle", "busy"}, "profile": {"heterogeneous"}, "reason": set(MISSING),
        }  # fmt: skip
        once = {"__name__", "instance", "le", "experiment", "model"}
        values: dict[str, set[str]] = {}
        for sample in prometheus.query('{__name__=~"(client:)?fedbench_.+"}'):
            for label, value in sample.labels.items():
                values.setdefault(label, set()).add(value)
        assert values.keys() <= closed.keys() | once
        for label in closed.keys() & values.keys():
            assert values[label] <= closed[label], label
        assert len(values["experiment"]) == len(values["model"]) == 1
        assert len(values["instance"]) == len(CLIENTS) + 1


class TestCommands:
    def test_status(self, first_run: Done) -> None:
        state = json.loads(fedbench("status", "--json").output)
        assert {row["service"] for row in state["containers"]} >= CLIENTS | {"server", "prometheus"}
        assert {row["health"] for row in state["containers"]} == {"healthy"}
        assert state["run_status"] == "finished"

    def test_top_shows_every_client_and_its_phase(self, first_run: Done) -> None:
        there = fedbench("top", "--once", "--prometheus", f"http://127.0.0.1:{PORTS['prometheus']}")
        here = fedbench("top", "--once")
        for shown in (there, here):
            assert shown.code == 0
            assert run_id(first_run.output) in shown.output
            rows = [line.split() for line in shown.output.splitlines()]
            assert {row[0] for row in rows if row[1:2] == ["waiting"]} >= CLIENTS

    def test_every_line_of_a_client_says_whose_it_is(self, first_run: Done) -> None:
        name = run_id(first_run.output)
        printed = fedbench("logs", "laptop", "--run", name, "--all", "--json").output
        lines = [json.loads(line) for line in printed.splitlines()]
        ours = [line for line in lines if line.get("run")]
        assert {(line["client"], line["device"], line["run"]) for line in ours} == {
            ("laptop", "laptop", name)
        }
        rounds = len(summary(name)["rounds"])
        assert {line["round"] for line in ours} == set(range(1, rounds + 1))

    def test_logs_of_a_client_are_its_own(self, first_run: Done) -> None:
        printed = fedbench("logs", "--client", "laptop", "--since", "1h").output
        assert "round 1 train message" in printed
        assert all(" laptop " in line for line in printed.splitlines() if line[:1] != " ")
        unknown = fedbench("logs", "--client", "desktop")
        assert unknown.code == 2
        assert "there are laptop, legacy-pc, prometheus, server, workstation" in unknown.output

    def test_up_again_needs_no_new_containers(
        self, first_run: Done, containers: Containers
    ) -> None:
        before = {name: container.id for name, container in containers().items()}
        again = run(
            "make", "up", "PROFILE=heterogeneous", "EXPERIMENT=noop", SET=f"{SET_PORTS} rounds=2"
        )
        assert again.code == 0
        assert {name: container.id for name, container in containers().items()} == before
        rounds = summary(run_id(again.output))["rounds"]
        # The weights go down and up again: 9 MB each way, and little else.
        sent = [client["bytes_sent"] for record in rounds for client in record["clients"]]
        assert all(9.0e6 < size < 9.3e6 for size in sent)

    def test_a_taken_port_is_named(self, first_run: Done) -> None:
        with socket.create_server(("127.0.0.1", 0)) as other:
            port = other.getsockname()[1]
            ours = PORTS | {"grafana": port}
            settings = [f"--set=ports.{name}={number}" for name, number in ours.items()]
            refused = fedbench("up", "heterogeneous", *settings)
        assert refused.code == 3
        assert f"port {port} (grafana) is taken by " in refused.output
        assert f"(pid {os.getpid()})" in refused.output

    def test_interrupt_keeps_what_was_recorded_and_resume_goes_on(self, first_run: Done) -> None:
        # A job in the background of a shell ignores Ctrl-C, and so do its children.
        heed = ["env", "--default-signal=INT"]
        command = [*heed, str(ROOT / ".venv/bin/fedbench"), "run", "--set", "local_epochs=1"]
        command += ["--set", "data.train_samples=600"]
        with subprocess.Popen(
            [*command, "--set", "rounds=3"],
            cwd=ROOT,
            env=environment(),
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stderr is not None
            lines = []
            for line in process.stderr:
                lines.append(line)
                if line.startswith("round 1/3: accuracy"):
                    break
            process.send_signal(signal.SIGINT)
            lines += process.stderr
        output = "".join(lines)
        print(output)
        assert process.returncode == 130
        name = run_id(output)
        assert f"make run RESUME={name}" in output
        stopped = summary(name)
        assert stopped["status"] == "interrupted"
        assert [record["round"] for record in stopped["rounds"]] == [1]

        assert run("make", "run", f"RESUME={name}").code == 0
        finished = summary(name)
        assert finished["status"] == "finished"
        assert [record["round"] for record in finished["rounds"]] == [1, 2, 3]
        assert finished["rounds"][0] == stopped["rounds"][0]

    def test_every_quota_is_in_force_while_clients_train(
        self, first_run: Done, containers: Containers
    ) -> None:
        planned = _planned_threads()
        name = run_id(run("make", "run", "DETACH=1", SET="rounds=1 local_epochs=2").output)
        folder = ROOT / "runs" / name
        until(lambda: '"round"' in text(folder / "events.jsonl"), "the round's start")
        found = containers()
        assert all(0 < _limits(found[client])[0] <= threads for client, threads in planned.items())
        assert text(folder / "rounds.jsonl") == ""  # they are at it
        until((folder / "summary.json").exists, "the run's end")

    def test_a_client_without_its_quota_takes_no_part(
        self, first_run: Done, containers: Containers
    ) -> None:
        """As after an `up` that was killed while the clients were starting."""
        planned = _planned_threads()
        laptop = containers()["laptop"]
        laptop.update(cpu_quota=-1)
        laptop.restart()

        def waits() -> bool:
            return "waiting for the CPU quota" in laptop.logs(tail=1).decode()

        until(waits, "the laptop connects")
        time.sleep(2)
        assert waits()
        assert _limits(laptop)[0] < 0

        done = run("make", "run", SET="rounds=1 local_epochs=1")
        clients = summary(run_id(done.output))["rounds"][0]["clients"]
        assert {client["client"] for client in clients if not client["error"]} == CLIENTS
        assert 0 < _limits(laptop)[0] <= planned["laptop"]

    def test_cifar10_from_a_folder_of_parquet(self, first_run: Done, tmp_path: Path) -> None:
        write_parquet(tmp_path)
        done = run(
            "make", "run", "EXPERIMENT=cifar10", f"DATA={tmp_path}",
            SET="rounds=1 local_epochs=1 data.train_samples=120 data.test_samples=40",
        )  # fmt: skip
        assert done.code == 0
        clients = summary(run_id(done.output))["rounds"][0]["clients"]
        assert sum(client["samples"] for client in clients) == 120

    def test_a_client_joins_a_run_and_another_is_lost(
        self, first_run: Done, containers: Containers
    ) -> None:
        detached = run("make", "run", "DETACH=1", SET="rounds=5 local_epochs=1")
        assert detached.code == 0
        name = run_id(detached.output)
        record = ROOT / "runs" / name / "rounds.jsonl"
        until(record.exists, "the first round")
        busy = fedbench("run")
        assert busy.code == 5
        assert f"run {name} is in progress" in busy.output

        joined = run(
            "make",
            "join",
            f"SERVER=localhost:{PORTS['server']}",
            "DEVICE=legacy-pc",
            "NAME=visitor",
            f"METRICS_PORT={METRICS_PORT}",
        )
        assert joined.code == 0
        # As a crash would: `docker kill` counts as the user's wish, and starts nothing again.
        containers()["laptop"].exec_run(["sh", "-c", "kill -9 $(cat /proc/1/task/1/children)"])

        until((record.parent / "summary.json").exists, "the run's end", 300)
        result = summary(name)
        assert result["status"] == "finished"
        missed = [
            c for c in result["rounds"][0]["clients"] + result["rounds"][1]["clients"] if c["error"]
        ]
        assert [client["client"] for client in missed] == ["laptop"]
        assert missed[0]["error"].endswith(HUNG_UP)
        # Docker started it again, and it is there at the end, as the visitor is.
        last = result["rounds"][-1]["clients"]
        assert {c["client"] for c in last if not c["error"]} == CLIENTS | {"visitor"}
        assert "| visitor |" in run("make", "report", f"RUN={name}").output
        prometheus = Prometheus(f"http://127.0.0.1:{PORTS['prometheus']}")
        query = f'fedbench_local_epoch_last_seconds{{run="{name}", client="visitor"}}'
        until(lambda: prometheus.query(query), "the visitor's epoch seconds in Prometheus", 30)

        # It leaves: it is scraped no more, and its history stays.
        assert run("docker", "stop", f"{PROJECT}-joined-visitor").code == 0
        until(lambda: {t.client for t in prometheus.targets()} == CLIENTS | {""}, "its end")
        assert prometheus.query(f"last_over_time({query}[10m])")


def _planned_threads() -> dict[str, int]:
    """The threads of each client, beyond which no quota goes."""
    saved = json.loads((STATE / "stack.json").read_text())
    return {client["name"]: client["threads"] for client in saved["clients"]}


def _limits(container: Container) -> tuple[float, int]:
    """CPUs and bytes of memory as the container's own cgroup has them, v1 or v2."""
    script = (
        "cd /sys/fs/cgroup; if [ -e cpu.max ]; then cat cpu.max memory.max | sed s/max/-1/; else "
        "cat cpu/cpu.cfs_quota_us cpu/cpu.cfs_period_us memory/memory.limit_in_bytes; fi"
    )
    _, output = container.exec_run(["sh", "-c", script])
    quota, period, memory = map(int, output.split())
    return quota / period, memory


def _dashboard(name: str) -> dict[str, Any]:
    return dict(json.loads((ROOT / f"grafana/dashboards/{name}.json").read_text()))


def _panels(name: str) -> list[dict[str, Any]]:
    """Panels of all rows but that of the GPU, which a host need not have."""
    tops = [top for top in _dashboard(name)["panels"] if top.get("title") != "GPU"]
    everything = [panel for top in tops for panel in (top, *(top.get("panels") or []))]
    return [panel for panel in everything if panel["type"] not in ("row", "text")]


def _rules() -> list[dict[str, Any]]:
    files = (ROOT / "compose/prometheus/rules").glob("*.yml")
    groups = [group for path in files for group in yaml.safe_load(path.read_text())["groups"]]
    return [rule for group in groups for rule in group["rules"]]


def _filled_in(expression: str, run_name: str) -> str:
    """A panel's query as Grafana would send it, all variables chosen."""
    expression = expression.replace("$runs", run_name).replace("$run", run_name)
    return expression.replace("$client", ".+").replace("$__range", "1h")
