from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from fedbench.host.setup.machine import (
    Done,
    HostMachine,
)
from fedbench.host.setup.pip import PipSettings, settings


@pytest.fixture
def machine(commands: Any) -> HostMachine:
    return HostMachine(execute=commands, environment={})


def test_nothing_configured(machine: HostMachine, commands: Any) -> None:
    found = settings(machine)
    assert found == PipSettings()
    assert found.build_options(wheels=True) == []
    assert found.environment() == {}
    assert commands.calls == [[sys.executable, "-m", "pip", "config", "list"]]


def test_a_python_without_pip_has_no_settings(machine: HostMachine, commands: Any) -> None:
    commands.answers["pip config"] = Done(1, "/usr/bin/python: No module named pip\n")
    assert settings(machine) == PipSettings()


def test_only_what_a_build_can_reach_is_handed_on(machine: HostMachine, commands: Any) -> None:
    commands.answers["pip config"] = Done(
        0,
        ":env:.timeout='60'\n"
        "download.index-url='https://other.example/simple'\n"
        "global.extra-index-url='file:///srv/simple https://user:word@pypi.example/simple'\n"
        "global.find-links='/srv/wheels https://wheels.example/'\n"
        "global.proxy='http://proxy.example:3128'\n"
        "global.trusted-host='pypi.example'\n",
    )
    found = settings(machine)
    assert found.conf == (
        "[global]\n"
        "proxy = http://proxy.example:3128\n"
        "trusted-host = pypi.example\n"
        "extra-index-url = https://user:word@pypi.example/simple\n"
        "find-links = https://wheels.example/\n"
    )
    assert found.wheels is None
    assert found.build_options(wheels=True) == ["--secret=id=pip,env=FEDBENCH_PIP_CONF"]
    assert found.environment() == {"FEDBENCH_PIP_CONF": found.conf}


def test_the_environment_overrides_the_files(machine: HostMachine, commands: Any) -> None:
    commands.answers["pip config"] = Done(
        0,
        ":env:.index-url='https://env.example/'\n"
        "global.index-url='https://global.example/'\n"
        "install.index-url='https://install.example/'\n",
    )
    assert settings(machine).conf == "[global]\nindex-url = https://env.example/\n"


def test_the_first_folder_with_a_torch_wheel(
    machine: HostMachine, commands: Any, tmp_path: Path
) -> None:
    empty, full = tmp_path / "empty", tmp_path / "full"
    for folder in (empty, full):
        folder.mkdir()
    (empty / "torchvision-0.28.0-cp311-cp311-linux_x86_64.whl").touch()
    (full / "torch-2.13.0+cpu-cp311-cp311-linux_x86_64.whl").touch()
    commands.answers["pip config"] = Done(0, f"global.find-links='{empty} file://{full}'\n")
    found = settings(machine)
    assert found == PipSettings(wheels=full)
    assert found.build_options(wheels=True) == [f"--build-context=wheels={full}"]
    assert found.build_options(wheels=False) == []


@pytest.mark.parametrize("source", ["cert", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"])
def test_certificates_are_handed_on(commands: Any, tmp_path: Path, source: str) -> None:
    bundle = tmp_path / "ca.crt"
    bundle.touch()
    if source == "cert":
        commands.answers["pip config"] = Done(0, f"global.cert='{bundle}'\n")
    found = settings(HostMachine(execute=commands, environment={source: str(bundle)}))
    assert found.conf == "[global]\ncert = /run/secrets/ca\n"
    assert found.build_options(wheels=True) == [
        "--secret=id=pip,env=FEDBENCH_PIP_CONF",
        f"--secret=id=ca,src={bundle}",
    ]


def test_a_bundle_that_does_not_exist_is_not_handed_on(commands: Any) -> None:
    machine = HostMachine(execute=commands, environment={"SSL_CERT_FILE": "/nonexistent.crt"})
    assert settings(machine) == PipSettings()
