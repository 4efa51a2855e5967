"""Every command that the README shows, run as it stands there."""

from __future__ import annotations

import re
from pathlib import Path

import docker
import pytest
from harness import METRICS_PORT, PORTS, ROOT, SET_PORTS, STATE, leftovers, run
from pictures import write_parquet

pytestmark = pytest.mark.docker

# A command that README shows stands in one of these two. Here, with what runs it:
ELSEWHERE = {
    "make up PROFILE=heterogeneous": "the fixture of test_federation.py",
    "make test": "what runs this test",
    "make fidelity PROFILE=table2": "test_emulation.py, with SHORT=1",
    "make sweep SWEEP=partitions": "test_sweep.py, on a smaller grid",
}
# And here, to be run one after the other on the federation of test_federation.py, with what a
# reader would put in their place.
COMMANDS = [
    "make up PROFILE=heterogeneous EXPERIMENT=cifar10 DATA=/path/to/folder",
    "make status",
    'make run EXPERIMENT=digits SET="rounds=3"',
    'make run EXPERIMENT=digits ENGINE=in-process SET="rounds=1"',
    "make join SERVER=192.168.1.20:9092 DEVICE=legacy-pc CA=ca.pem",
    "make top",
    "make logs CLIENT=laptop SINCE=5m",
    "make report",
    "make report OUTPUT=report.html",
    'make run SET="model=sample:small_cnn"',
    "make plan PROFILE=legacy-pair",
    "make data PROFILE=heterogeneous",
    "make data PROFILE=heterogeneous PICTURE=held.svg "
    'SET="data.partition=dirichlet data.partition.alpha=0.3"',
    "make devices DEVICE=legacy-pc",
    "make calibrate",
    "make down",
    "make reproduce WHAT=table3 ENGINE=in-process SCALE=0.01 ROUNDS=2 DATA=/path/to/folder",
]
SMALL = "rounds=1 local_epochs=1 data.train_samples=120 data.test_samples=40"


def shown() -> list[str]:
    blocks = re.findall(r"^```sh\n(.*?)^```", (ROOT / "README.md").read_text(), re.M | re.S)
    lines = [line.partition(" #")[0].strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line]


def test_the_list_is_the_readme() -> None:
    assert sorted(shown()) == sorted([*ELSEWHERE, *COMMANDS])


def test_every_command_works(clean: docker.DockerClient, tmp_path: Path) -> None:
    write_parquet(tmp_path)
    for command in COMMANDS:
        line = command.replace("/path/to/folder", str(tmp_path))
        line = line.replace("192.168.1.20:9092", f"localhost:{PORTS['server']}")
        line = line.replace(
            "CA=ca.pem", f"CA={STATE}/tls/ca.pem NAME=visitor METRICS_PORT={METRICS_PORT}"
        )
        if command.startswith("make up"):
            line += f' SET="{SET_PORTS} {SMALL}"'
        done = run("sh", "-c", _short(line, tmp_path))
        assert done.code == 0, command
        assert done.output.strip(), command
    # `down` keeps what Prometheus recorded, and nothing else.
    assert all(name.endswith(("prometheus-data", "grafana-data")) for name in leftovers(clean))


def _short(line: str, folder: Path) -> str:
    """The same with less to train, and with files of its own in a folder that goes away."""
    line = line.replace("rounds=3", "rounds=1 local_epochs=1")
    line = line.replace('"rounds=1"', f'"{SMALL}"')  # in one program
    line = line.replace("small_cnn", "small_cnn rounds=1 local_epochs=1")
    # That one is known already; tests/host/speed/test_calibration.py measures, and
    # tests/cli/test_host.py tests that all are the default.
    line = line.replace("make calibrate", "make calibrate MODEL=mobilenet_v2")
    line = line.replace("SCALE=0.01 ROUNDS=2", "SCALE=0.002 ROUNDS=1")
    return line.replace("report.html", f"{folder}/report.html").replace("held", f"{folder}/held")
