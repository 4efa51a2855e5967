"""How pip is configured on this host, handed on to the pip inside an image build.

Secrets, not build arguments: an index's address may hold a password, and neither it nor the
host's certificates belong in the image.
"""

from __future__ import annotations

import ast
import sys
from dataclasses import dataclass
from pathlib import Path

from fedbench.host.setup.machine import (
    HostMachine,
)

_PIP_CONF = "FEDBENCH_PIP_CONF"
_ADDRESSES = ("index-url", "extra-index-url", "find-links")
_CERTIFICATES = "/run/secrets/ca"


@dataclass(frozen=True)
class PipSettings:
    """What a build needs of the host: pip.conf, a folder of wheels, a certificate bundle."""

    conf: str = ""
    wheels: Path | None = None
    certificates: Path | None = None

    def build_options(self, *, wheels: bool) -> list[str]:
        """Return options of `docker build`, for the mounts that docker/Dockerfile names."""
        options = []
        if wheels and self.wheels:
            options.append(f"--build-context=wheels={self.wheels}")
        if self.conf:
            options.append(f"--secret=id=pip,env={_PIP_CONF}")
        if self.certificates:
            options.append(f"--secret=id=ca,src={self.certificates}")
        return options

    def environment(self) -> dict[str, str]:
        """Return the environment in which `docker build` finds pip.conf."""
        return {_PIP_CONF: self.conf} if self.conf else {}


def settings(machine: HostMachine) -> PipSettings:
    """Read the host's pip settings as far as they mean something inside a build."""
    options = _options(machine)
    certificates = _certificates(machine, options)
    lines = [f"{key} = {options[key]}" for key in ("proxy", "trusted-host") if key in options]
    for key in _ADDRESSES:
        if remote := [item for item in options.get(key, "").split() if item.startswith("http")]:
            lines.append(f"{key} = {' '.join(remote)}")
    if certificates:
        lines.append(f"cert = {_CERTIFICATES}")
    conf = "\n".join(["[global]", *lines, ""]) if lines else ""
    return PipSettings(conf, _wheels(options), certificates)


def _options(machine: HostMachine) -> dict[str, str]:
    """Return pip's options by name; the environment overrides [install], and that [global]."""
    listed = machine.execute([sys.executable, "-m", "pip", "config", "list"])
    scopes: dict[str, dict[str, str]] = {"global": {}, "install": {}, ":env:": {}}
    for line in listed.output.splitlines() if listed.code == 0 else ():
        name, _, value = line.partition("=")
        scope, _, key = name.rpartition(".")
        if scope in scopes:
            scopes[scope][key] = ast.literal_eval(value)
    return {**scopes["global"], **scopes["install"], **scopes[":env:"]}


def _certificates(machine: HostMachine, options: dict[str, str]) -> Path | None:
    """Return the bundle that this host's programs are told to trust, if they are told."""
    environment = machine.environment
    named = [options.get("cert"), environment.get("SSL_CERT_FILE")]
    named.append(environment.get("REQUESTS_CA_BUNDLE"))
    return next((Path(name) for name in named if name and Path(name).is_file()), None)


def _wheels(options: dict[str, str]) -> Path | None:
    """Return the first of pip's folders of wheels that has a torch."""
    folders = [Path(item.removeprefix("file://")) for item in options.get("find-links", "").split()]
    return next((folder for folder in folders if any(folder.glob("torch-*.whl"))), None)
