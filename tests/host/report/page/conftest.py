from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fedbench.host.report.page.story import Story
from fedbench.records import read_lines
from fedbench.records.runs import Run

GOLDEN = Path(__file__).parents[3] / "golden" / "runs" / "20260102-030405-digits"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
TARGETS = {"laptop": 3.75, "legacy-pc": 9.5, "workstation": 1.5}
Change = Callable[..., Run]


@pytest.fixture
def old_run(tmp_path: Path) -> Run:
    """Two rounds of three devices, of a version that recorded less; legacy-pc failed in the second.

    Its epochs take 4, 9.5 and 1.5 s at the median.
    """
    return Run(Path(shutil.copytree(GOLDEN, tmp_path / GOLDEN.name)))


@pytest.fixture
def run(old_run: Run) -> Run:
    """The same as it is recorded now: dilated by 2, in containers, two classes."""
    rewrite(old_run, rounds=_as_now)
    facts = old_run.facts().model_dump(exclude_unset=True) | {"class_names": ["cat", "dog"]}
    shares = dict.fromkeys(TARGETS, 0.5)
    facts["emulation"] = {"dilation": 2.0, "targets": {"laptop": 128.0}, "shares": shares}
    (old_run.path / "run.json").write_text(json.dumps(facts))
    clients = {
        name: {"mem_limit": str(2**30), "environment": {"FEDBENCH_CLIENT": name}}
        for name in TARGETS
    }
    project = {"services": {**clients, "server": {"environment": {}}}}
    (old_run.path / "compose.yaml").write_text(json.dumps(project))
    versions = {"fedbench": "0.1.0", "cpu": "A CPU", "cores": 2, "memory_bytes": 8 * 2**30}
    (old_run.path / "versions.json").write_text(json.dumps(versions))
    return old_run


@pytest.fixture
def story(run: Run) -> Story:
    return Story.of(run)


@pytest.fixture
def old_story(old_run: Run) -> Story:
    return Story.of(old_run)


@pytest.fixture(scope="session")
def chromium() -> str:
    """A headless browser's program; Debian's package is installed where it can be."""
    if found := _browser():
        return found
    if os.geteuid() or not shutil.which("apt-get"):
        pytest.skip("no chromium on PATH, and nobody who may install Debian's package")
    for arguments in (["update"], ["install", "-y", "--no-install-recommends", "chromium"]):
        command = ["apt-get", "-q", *arguments]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"chromium cannot be installed: {done.stderr.strip()}")
    return _browser() or pytest.fail("apt-get installed chromium, but no program of that name")


def _browser() -> str | None:
    return next((path for name in BROWSERS if (path := shutil.which(name))), None)


def rewrite(run: Run, rounds: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Changes each record of a run."""
    path = run.path / "rounds.jsonl"
    lines = [json.dumps(rounds(record)) for record in read_lines(path)]
    path.write_text("".join(f"{line}\n" for line in lines))


def _as_now(record: dict[str, Any]) -> dict[str, Any]:
    for client in record["clients"]:
        client |= {"dilation": 2.0, "target_epoch_seconds": TARGETS[client["client"]] / 2}
        client["epochs"] = [
            {"seconds": s, "cpu_seconds": s / 4, "throttled_seconds": s / 8, "steal_seconds": 0}
            for s in client["epoch_seconds"]
        ]
        if client["error"] is None:
            client |= {"energy_idle_joules": 100.0, "energy_busy_joules": 400.0}
        if client["evaluate_seconds"]:
            client |= {"download_seconds": 0.375, "evaluate_download_seconds": 0.125}
            client["upload_seconds"] = 0.25
    return record | {"confusion": [[9, 1], [4, 6]] if record["round"] == 2 else None}
