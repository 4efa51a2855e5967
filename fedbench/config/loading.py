"""YAML files -> devices, networks, profiles, experiments, by name or by path."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from fedbench.config.device import Device, Network, NetworkClass
from fedbench.config.experiment import Experiment
from fedbench.config.explain import explain, nearest, shown
from fedbench.config.fields import Model
from fedbench.config.overrides import override
from fedbench.config.plain_yaml import MOST_BYTES, NotYamlError, parse
from fedbench.config.profile import Profile
from fedbench.errors import ConfigError

CONFIGS = Path(__file__).resolve().parents[2] / "configs"

M = TypeVar("M", bound=Model)


def available(kind: str, root: Path = CONFIGS) -> list[str]:
    """Return the names of all `device`s, `network`s, `profile`s, `experiment`s or `sweep`s."""
    return sorted(path.stem for path in (root / f"{kind}s").glob("*.yaml"))


def load_device(name: str, overrides: Sequence[str] = (), root: Path = CONFIGS) -> Device:
    """Return the device profile of that name, or in that file."""
    return load(Device, "device", name, overrides, root)


def load_devices(profile: Profile, root: Path = CONFIGS) -> dict[str, Device]:
    """Return the device profiles that the machines of `profile` name, by name."""
    devices = {}
    for number, machine in enumerate(profile.machines):
        try:
            devices[machine.device] = load_device(machine.device, root=root)
        except ConfigError as error:
            where = f"profile {profile.name}: machines.{number}.device"
            raise ConfigError(f"{where}: {error.message}", error.hint) from None
    return devices


def load_network(name: str, root: Path = CONFIGS) -> NetworkClass:
    """Return the network of that name, or in that file."""
    return load(NetworkClass, "network", name, (), root)


def load_networks(
    profile: Profile, devices: Mapping[str, Device], root: Path = CONFIGS
) -> list[Network | None]:
    """Return the network of each machine of `profile`: its own, the profile's or its device's."""
    networks = []
    for number, machine in enumerate(profile.machines):
        network = machine.network or profile.network or devices[machine.device].network
        try:
            networks.append(load_network(network, root) if isinstance(network, str) else network)
        except ConfigError as error:
            where = f"profile {profile.name}: the network of machines.{number} ({machine.device})"
            raise ConfigError(f"{where}: {error.message}", error.hint) from None
    return networks


def load_profile(name: str, overrides: Sequence[str] = (), root: Path = CONFIGS) -> Profile:
    """Return the federation of that name, or in that file."""
    return load(Profile, "profile", name, overrides, root)


def load_experiment(name: str, overrides: Sequence[str] = (), root: Path = CONFIGS) -> Experiment:
    """Return the experiment of that name, or in that file."""
    return load(Experiment, "experiment", name, overrides, root)


def load(model: type[M], kind: str, name: str, overrides: Sequence[str], root: Path) -> M:
    """Return the configuration of that kind and name, or in that file, as a `model`.

    Raises:
        ConfigError: there is none, or something in it or in an override is not as expected.
    """
    path = find(kind, name, root)
    values = _read(path)
    values.setdefault("name", path.stem)
    for setting in overrides:
        override(values, setting)
    try:
        return model.model_validate(values)
    except ValidationError as error:
        problems = [explain(item, model, path, overrides) for item in error.errors()]
        raise refusal(problems, path) from None


def refusal(problems: Sequence[str], path: Path) -> ConfigError:
    """Return the error of these lines; one about the file makes it say to edit that."""
    edit = any(problem.startswith(f"{path}: ") for problem in problems)
    return ConfigError("\n".join(problems), f"edit {path}" if edit else "")


def find(kind: str, name: str, root: Path = CONFIGS) -> Path:
    """Return the file of that kind and name, or of that path.

    Raises:
        ConfigError: there is none.
    """
    if name.endswith((".yaml", ".yml")):
        path = Path(name)
        if not _is_file(path):
            raise ConfigError(f"{name}: no such {kind} file")
        return path
    path = root / f"{kind}s" / f"{name}.yaml"
    if "/" in name or not _is_file(path):
        known = available(kind, root)
        hint = f"known {kind}s: {', '.join(known) or 'none'}; others go into {root}/{kind}s"
        raise ConfigError(f"unknown {kind} {name!r}{nearest(name, known)}", hint)
    return path


def _is_file(path: Path) -> bool:
    with suppress(OSError):  # of a name that is too long for any file
        return path.is_file()
    return False


def _read(path: Path) -> dict[str, Any]:
    edit = f"edit {path}"
    try:
        values = parse(_text(path))
    except NotYamlError as error:
        line = f", line {error.line}" if error.line else ""
        raise ConfigError(f"{path}{line}: not YAML: {error}", edit) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as YAML: {error}", edit) from None
    if not isinstance(values, dict):
        found = "nothing" if values is None else shown(values)
        raise ConfigError(f"{path}: expected keys and values, found {found}", edit)
    return values


def _text(path: Path) -> str:
    with path.open("rb") as file:
        return file.read(MOST_BYTES + 1).decode()
