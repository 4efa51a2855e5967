"""A client's container is one thing, whoever starts it: `up`, `join` or calibration."""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

import pytest

from fedbench.config import load_device, load_devices, load_profile
from fedbench.engines.containers.join import Request, joining_container
from fedbench.engines.containers.runtime.docker_containers import sdk_options
from fedbench.engines.containers.runtime.stack import container_user
from fedbench.engines.containers.runtime.workbench import docker_run
from fedbench.host.plan.plan import HostFacts, plan
from fedbench.host.plan.project import Paths, compose_project, environment
from fedbench.host.plan.shares import Part

ROOT = Path(__file__).parents[3]
HOST = HostFacts(cpus=2, memory=8 * 2**30)


def brought_up() -> dict[str, Any]:
    """A client as `up` has it, in the words of a compose file."""
    profile = load_profile("heterogeneous")
    planned = plan(profile, load_devices(profile), HOST)
    paths = Paths(ROOT, ROOT / "data", ROOT / "runs", ROOT / "tls", container_user())
    service = compose_project(planned, paths)["services"]["legacy-pc"]
    images = {"fedbench": "fedbench:cpu", "prometheus": None, "grafana": None}
    for name, value in environment(planned, paths, images).items():
        for key in ("image", "user"):
            service[key] = service[key].replace(f"${{{name}}}", value)
    return dict(service)


def joining() -> dict[str, Any]:
    """A client as `join` has it."""
    device = load_device("legacy-pc")
    asked = Request("10.0.0.1:9092", device, "legacy-pc", None, None, None, 9101)
    folder, certificate = ROOT / "data", ROOT / "tls/ca.pem"
    options = sdk_options(
        joining_container(asked, "fedbench:cpu", HOST, Part(1, 0.5, 0.5), folder, certificate)
    )
    log = options["log_config"]
    return options | {
        "restart": options["restart_policy"]["Name"],
        "logging": {"driver": log["Type"], "options": log["Config"]},
        "tmpfs": [":".join(pair) for pair in options["tmpfs"].items()],
    }


def measuring() -> dict[str, Any]:
    """A client's stand-in as calibration has it, from the words of its command line."""
    parser = ArgumentParser()
    for flag in ("--rm", "--init", "--read-only"):
        parser.add_argument(flag, action="store_true")
    for option in ("--user", "--network", "--log-driver"):
        parser.add_argument(option)
    parser.add_argument("--pids-limit", type=int)
    for option in ("--tmpfs", "--cap-drop", "--security-opt", "--volume", "--log-opt"):
        parser.add_argument(option, action="append")
    options, (image, *command) = parser.parse_known_args(docker_run("fedbench:cpu")[2:])
    values = vars(options)
    log_options = dict(option.split("=") for option in values["log_opt"])
    return values | {
        "image": image,
        "command": command,
        "volumes": values["volume"],
        "logging": {"driver": values["log_driver"], "options": log_options},
    }


WAYS = {"up": brought_up, "join": joining, "calibration": measuring}
SAME = (
    "image", "user", "init", "read_only", "tmpfs", "cap_drop", "security_opt", "pids_limit",
    "logging",
)  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_no_way_of_starting_a_client_gives_it_other_rights(way: str) -> None:
    container = WAYS[way]()
    assert {key: container[key] for key in SAME} == {
        "image": "fedbench:cpu",
        "user": container_user(),
        "init": True,
        "read_only": True,
        "tmpfs": ["/tmp:size=256m,mode=1777"],
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "pids_limit": 4096,
        "logging": {"driver": "json-file", "options": {"max-size": "10m", "max-file": "4"}},
    }
    assert f"{ROOT}/models:/models:ro" in container["volumes"]
    assert all(volume.endswith(":ro") for volume in container["volumes"])


@pytest.mark.parametrize("way", ["up", "join"])
def test_a_client_is_what_its_device_is(way: str) -> None:
    container = WAYS[way]()
    assert container["command"] == ["python", "-m", "fedbench.client"]
    assert container["restart"] == "always"
    assert container["mem_limit"] == container["memswap_limit"] == 4 * 2**30
    assert 0 < container["cpu_quota"] < 2 * container["cpu_period"]
    assert container["hostname"] == container["environment"]["FEDBENCH_CLIENT"] == "legacy-pc"
    assert [volume.split(":")[1] for volume in container["volumes"]] == [
        "/models", "/data", "/tls/ca.pem",
    ]  # fmt: skip
