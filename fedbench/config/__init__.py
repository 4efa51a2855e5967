"""YAML files -> frozen models: devices, profiles, experiments.

A name is looked up in `configs/<kind>s/<name>.yaml`; a path to a YAML file works as well.
Every error names the file, the key, what was expected and what to do.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    model_validator,
)
from pydantic_core import PydanticCustomError

from fedbench.config.device_values import disagreements, values_as_text
from fedbench.config.explain import explain, nearest
from fedbench.config.model_names import parse_model
from fedbench.config.partitions import Iid, Partition
from fedbench.config.units import parse_bytes, parse_rate, parse_seconds, parse_share, parse_speed
from fedbench.errors import ConfigError

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
# Keys of which a text is short for keys with that `name`: `partition: iid`.
_SHORT = ("partition",)


def parse_name(value: str) -> str:
    """The name of a device, profile, experiment or client, unchanged.

    Raises:
        ValueError: it could not be the name of a host, a container and a folder.
    """
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,40}", value):
        raise ValueError("expected lower-case letters, digits and '-', at most 41 characters")
    return value


def _enough_memory(value: int) -> int:
    if value < 256 * 2**20:
        raise ValueError("expected at least 256MiB")
    return value


Bytes = Annotated[int, BeforeValidator(parse_bytes)]
Rate = Annotated[float, BeforeValidator(parse_rate)]
Seconds = Annotated[float, BeforeValidator(parse_seconds)]
Share = Annotated[float, BeforeValidator(parse_share)]
Speed = Annotated[float, BeforeValidator(parse_speed)]
Name = Annotated[str, AfterValidator(parse_name)]
ModelName = Annotated[str, AfterValidator(parse_model)]


class Model(BaseModel):
    """A frozen model that refuses unknown keys and does not turn strings into numbers."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Gpu(Model):
    """A device's GPU; `share` is the part of its time that the device's clients get."""

    model: str
    memory: Bytes
    share: Annotated[float, Field(gt=0, le=1, strict=False)] = 1.0


class Watts(Model):
    """What the whole device draws, idle and while it trains."""

    idle: Annotated[float, Field(ge=0, strict=False)]
    load: Annotated[float, Field(gt=0, strict=False)]


class Network(Model):
    """A device's link to the server: bit/s down to it and up from it, and what each way adds.

    `delay`, `jitter` (seconds) and `loss` (0 to 1) hold for each of the two directions.
    """

    down: Rate | None = None
    up: Rate | None = None
    delay: Seconds = 0.0
    jitter: Seconds = 0.0
    loss: Share = 0.0


class NetworkClass(Network):
    """A kind of link that has a name; `sources` as of a device."""

    name: Name
    description: str
    sources: dict[Literal["down", "up", "delay", "jitter", "loss"], str] = {}


def _form(network: object) -> str:
    return "[name]" if isinstance(network, str) else "[keys]"


NetworkOrName = Annotated[
    Annotated[Network, Tag("[keys]")] | Annotated[Name, Tag("[name]")], Discriminator(_form)
]


class Device(Model):
    """One kind of computer: how fast it is, and what else a container of it may use.

    `speed` is what one client trains on the real device, in samples/s by model, on the GPU where
    the device has one; `capacity` what several clients reach together, where that is more.
    `sources` says by key (`memory`, `speed.mobilenet_v2`) where a figure was read: the others
    are estimated.
    """

    name: Name
    description: str
    cores: Annotated[float, Field(gt=0)]
    threads: Annotated[int, Field(ge=1)] | None = None
    memory: Annotated[Bytes, AfterValidator(_enough_memory)]
    gpu: Gpu | None = None
    speed: dict[ModelName, Speed] = {}
    capacity: dict[ModelName, Speed] = {}
    watts: Watts | None = None
    network: NetworkOrName | None = None
    sources: dict[str, str] = {}

    @model_validator(mode="after")
    def _figures_agree(self) -> Self:
        for key, problem in disagreements(self.model_dump()):
            raise PydanticCustomError("figure", "{problem}", {"key": key, "problem": problem})
        return self

    def figures(self) -> dict[str, str]:
        """Its figures by dotted key, each with its unit, such as `speed.mobilenet_v2`."""
        return values_as_text(self.model_dump())

    def estimated(self) -> list[str]:
        """Keys of the figures that no source is given for."""
        return [key for key in self.figures() if key not in self.sources]


class Machine(Model):
    """`count` computers of one device profile, each of which runs `clients` clients.

    `network` takes the place of the profile's and of the device's own; `gpu` is the index of the
    host's GPU that it gets.
    """

    device: Name
    count: Annotated[int, Field(ge=1)] = 1
    clients: Annotated[int, Field(ge=1)] = 1
    name: Name | None = None
    network: NetworkOrName | None = None
    gpu: Annotated[int, Field(ge=0)] | None = None


def _some(machines: tuple[Machine, ...]) -> tuple[Machine, ...]:
    if not machines:
        raise ValueError("expected at least one machine, such as `- device: laptop`")
    return machines


class Ports(Model):
    """Ports on the host. The server's is open to the LAN, the others to localhost only."""

    server: Annotated[int, Field(ge=1, le=65535)] = 9092
    prometheus: Annotated[int, Field(ge=1, le=65535)] = 9090
    grafana: Annotated[int, Field(ge=1, le=65535)] = 3000


class Profile(Model):
    """A federation: which machines, on which network and ports, and how they are emulated.

    `dilation` slows all of them by one factor; without it the smallest that fits the host is
    taken. `strict` refuses a host on which something cannot be emulated as it is. `gpu_stand_in`
    lets CPUs take the place of GPUs that the host lacks, at the GPU's speed.
    """

    name: Name
    description: str = ""
    machines: Annotated[tuple[Machine, ...], Field(strict=False), AfterValidator(_some)]
    network: NetworkOrName | None = None
    ports: Ports = Ports()
    dilation: Annotated[float, Field(ge=1, strict=False)] | None = None
    gpu_stand_in: bool = False
    strict: bool = False
    node: Literal["fedbench", "stock"] = "fedbench"


class Data(Model):
    """Which images, and how they are divided among the clients.

    `image_column` and `label_column` say which columns of Parquet files are meant, where their
    types leave it open.
    """

    name: Literal["digits", "cifar10", "folder"] = "digits"
    partition: Partition = Iid()
    image_column: str | None = None
    label_column: str | None = None
    train_samples: Annotated[int, Field(ge=1)] | None = None
    test_samples: Annotated[int, Field(ge=1)] | None = None


class Experiment(Model):
    """What is learned: FedAvg's C, B and E (McMahan et al. 2017, Algorithm 1) and the rest."""

    name: Name
    description: str = ""
    task: Literal["train", "noop"] = "train"
    model: ModelName = "mobilenet_v2"
    initial_weights: str | None = None
    # What clients return under `task: noop`, instead of the model's own weights; 1 MB is 10^6 B.
    noop_megabytes: Annotated[float, Field(ge=0.001, le=1000, strict=False)] | None = None
    data: Data = Data()
    rounds: Annotated[int, Field(ge=1)] = 5
    # Who takes part; all by default.
    clients: Annotated[tuple[Name, ...], Field(strict=False)] | None = None
    fraction: Annotated[float, Field(gt=0, le=1, strict=False)] = 1.0
    batch_size: Annotated[int, Field(ge=2)] = 32  # batch normalisation needs two images
    local_epochs: Annotated[int, Field(ge=1)] = 1
    # A client goes on with further epochs until this many wall seconds of training have passed.
    local_seconds: Annotated[float, Field(ge=0, strict=False)] = 0.0
    learning_rate: Annotated[float, Field(gt=0, strict=False)] = 0.001
    precision: Literal["fp32", "tf32", "bf16"] = "fp32"
    # From here to `server_momentum`: what the study did not do. `sgd` has Nesterov's momentum of
    # 0.9, `adam` with a weight decay is AdamW; `cosine` falls from `learning_rate` to 0 over all
    # rounds together.
    optimizer: Literal["adam", "sgd"] = "adam"
    weight_decay: Annotated[float, Field(ge=0, strict=False)] = 0.0
    schedule: Literal["constant", "cosine"] = "constant"
    augmentation: Literal["none", "flip-crop"] = "none"
    label_smoothing: Annotated[float, Field(ge=0, lt=1, strict=False)] = 0.0
    # The first convolution's. 1 is 1.7 to 3.7 times the work, and devices' speeds are of 2.
    stem_stride: Literal[1, 2] = 2
    # How the clients' running variances are averaged: `pooled` counts how far their means differ.
    batch_norm: Literal["mean", "pooled"] = "mean"
    server_momentum: Annotated[float, Field(ge=0, lt=1, strict=False)] = 0.0
    seed: Annotated[int, Field(ge=0)] = 0
    # Flower keeps a message for 12 hours.
    round_timeout_seconds: Annotated[float, Field(gt=0, le=43_200, strict=False)] = 43_200.0
    wait_for_clients_seconds: Annotated[float, Field(gt=0, strict=False)] = 86_400.0


M = TypeVar("M", bound=Model)


def available(kind: str, root: Path = CONFIGS) -> list[str]:
    """Names of all `device`s, `network`s, `profile`s, `experiment`s or `sweep`s."""
    return sorted(path.stem for path in (root / f"{kind}s").glob("*.yaml"))


def load_device(name: str, overrides: Sequence[str] = (), root: Path = CONFIGS) -> Device:
    """The device profile of that name, or in that file."""
    return load(Device, "device", name, overrides, root)


def load_devices(profile: Profile, root: Path = CONFIGS) -> dict[str, Device]:
    """The device profiles that the machines of `profile` name, by name."""
    devices = {}
    for number, machine in enumerate(profile.machines):
        try:
            devices[machine.device] = load_device(machine.device, root=root)
        except ConfigError as error:
            where = f"profile {profile.name}: machines.{number}.device"
            raise ConfigError(f"{where}: {error.message}", error.hint) from None
    return devices


def load_network(name: str, root: Path = CONFIGS) -> NetworkClass:
    """The network of that name, or in that file."""
    return load(NetworkClass, "network", name, (), root)


def load_networks(
    profile: Profile, devices: Mapping[str, Device], root: Path = CONFIGS
) -> list[Network | None]:
    """The network of each machine of `profile`: its own, the profile's, or its device's."""
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
    """The federation of that name, or in that file."""
    return load(Profile, "profile", name, overrides, root)


def load_experiment(name: str, overrides: Sequence[str] = (), root: Path = CONFIGS) -> Experiment:
    """The experiment of that name, or in that file."""
    return load(Experiment, "experiment", name, overrides, root)


def split_overrides(settings: Sequence[str]) -> tuple[list[str], list[str]]:
    """`--set` values -> those of the experiment, those of the profile.

    Raises:
        ConfigError: not `key=value`, or no experiment and no profile has such a key.
    """
    experiment, profile = [], []
    for setting in settings:
        key = setting.partition("=")[0].split(".")[0]
        if "=" not in setting:
            raise ConfigError(f"--set {setting}: expected key=value", "for example --set rounds=5")
        if key in Experiment.model_fields and key not in ("name", "description"):
            experiment.append(setting)
        elif key in Profile.model_fields:
            profile.append(setting)
        else:
            known = list(Experiment.model_fields | Profile.model_fields)
            raise ConfigError(f"--set {setting}: unknown key {key!r}{nearest(key, known)}")
    return experiment, profile


def load(model: type[M], kind: str, name: str, overrides: Sequence[str], root: Path) -> M:
    """The configuration of that kind and name, or in that file, as `model` has it.

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
    """The error of these lines; where one of them is about the file, it says to edit that."""
    edit = any(problem.startswith(f"{path}: ") for problem in problems)
    return ConfigError("\n".join(problems), f"edit {path}" if edit else "")


def find(kind: str, name: str, root: Path = CONFIGS) -> Path:
    """The file of that kind and name, or of that path.

    Raises:
        ConfigError: there is none.
    """
    if name.endswith((".yaml", ".yml")):
        path = Path(name)
        if not path.is_file():
            raise ConfigError(f"{name}: no such {kind} file")
        return path
    path = root / f"{kind}s" / f"{name}.yaml"
    if "/" in name or not path.is_file():
        known = available(kind, root)
        hint = f"known {kind}s: {', '.join(known) or 'none'}; others go into {root}/{kind}s"
        raise ConfigError(f"unknown {kind} {name!r}{nearest(name, known)}", hint)
    return path


def _read(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ConfigError(f"{path}{line}: not YAML: {error.problem}", f"edit {path}") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: cannot be read as YAML: {error}", f"edit {path}") from None
    if not isinstance(values, dict):
        found = "nothing" if values is None else repr(values)
        raise ConfigError(f"{path}: expected keys and values, found {found}", f"edit {path}")
    return values


def assign(values: dict[str, Any], key: str, value: object) -> None:
    """Sets a dotted key in nested mappings.

    Raises:
        ValueError: something on the way to it is no mapping.
    """
    *parents, leaf = key.split(".")
    for parent in parents:
        inner = values.setdefault(parent, {})
        if parent in _SHORT and isinstance(inner, str):
            inner = values[parent] = {"name": inner}
        if not isinstance(inner, dict):
            raise ValueError(f"{parent!r} has no keys of its own")
        values = inner
    values[leaf] = value


def override(values: dict[str, Any], setting: str) -> None:
    """Sets what a `--set` option says.

    Raises:
        ConfigError: its value is not YAML, or something on the way to its key is no mapping.
    """
    key, _, text = setting.partition("=")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise ConfigError(f"--set {setting}: the value is not YAML") from None
    try:
        assign(values, key, value)
    except ValueError as error:
        raise ConfigError(f"--set {setting}: {error}") from None
