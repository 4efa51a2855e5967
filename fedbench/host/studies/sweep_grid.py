"""A sweep's file: `configs/sweeps/<name>.yaml` -> the experiments of a grid.

Pure; `sweep.py` runs them.
"""

from __future__ import annotations

import copy
import hashlib
import itertools
import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from fedbench.config import (
    CONFIGS,
    Device,
    Experiment,
    Model,
    Name,
    Network,
    Profile,
    assign,
    find,
    load,
    load_devices,
    load_experiment,
    load_networks,
    load_profile,
    override,
    refusal,
    split_overrides,
)
from fedbench.config.explain import explain
from fedbench.config.explain import shown as explain_value
from fedbench.errors import ConfigError

MOST_RUNS = 10_000
"""Of a sweep."""


def _seeds(value: object) -> object:
    """Parse `3` -> 0, 1, 2; take a list as it is, without repetitions."""
    if type(value) is int and 0 < value <= MOST_RUNS:
        return tuple(range(value))
    if isinstance(value, list) and value and all(type(seed) is int for seed in value):
        return tuple(dict.fromkeys(value))
    raise ValueError("expected how many seeds, such as 3, or a list of them, such as [0, 7]")


class Sweep(Model):
    """A grid of experiments on one profile; every combination is run with every seed.

    `set` changes keys of `experiment` for all of them. A key of `grid` has a list of values, or
    is several keys that change together: `rounds, local_epochs: [[5, 5], [10, 10]]`. Without
    `seeds` the experiment's own is taken.
    """

    name: Name
    description: str = ""
    profile: str
    experiment: str
    set: dict[str, Any] = Field(default={})
    grid: dict[str, Annotated[tuple[Any, ...], Field(strict=False)]] = Field(default={})
    seeds: Annotated[tuple[int, ...], BeforeValidator(_seeds)] | None = None

    @model_validator(mode="after")
    def _values_fit_their_keys(self) -> Self:
        for key, problem in _problems(self):
            raise PydanticCustomError("figure", "{problem}", {"key": key, "problem": problem})
        if (runs := self._runs()) > MOST_RUNS:
            problem = f"expected at most {MOST_RUNS} runs, found {runs}"
            raise PydanticCustomError("figure", "{problem}", {"key": "grid", "problem": problem})
        return self

    def _runs(self) -> int:
        return math.prod(map(len, self.grid.values())) * len(self.seeds or (0,))

    def varied(self) -> list[str]:
        """List the keys of the experiment that differ between runs."""
        keys = [name for key in self.grid for name in names(key)]
        return [*keys, "seed"] if self.seeds else keys


@dataclass(frozen=True)
class Point:
    """One run of a sweep; `settings` are the grid's keys and values, without the seed."""

    settings: dict[str, Any]
    experiment: Experiment

    def __str__(self) -> str:
        pairs = (self.settings | {"seed": self.experiment.seed}).items()
        return ", ".join(f"{key}={shown(value)}" for key, value in pairs)


@dataclass(frozen=True)
class Study:
    """A sweep with everything that it names."""

    sweep: Sweep
    profile: Profile
    devices: dict[str, Device]
    points: list[Point]


def load_study(name: str, settings: Sequence[str] = (), root: Path = CONFIGS) -> Study:
    """Load the sweep of that name, or in that file; `settings` come from `--set`.

    Raises:
        ConfigError: something in the file, in a file that it names, or in an experiment of the
            grid is not as expected.
    """
    file = find("sweep", name, root)
    sweep = load(Sweep, "sweep", name, (), root)
    for kind, named in (("profile", sweep.profile), ("experiment", sweep.experiment)):
        try:
            find(kind, named, root)
        except ConfigError as error:
            raise ConfigError(f"{file}: {kind}: {error.message}", error.hint) from None
    for_experiment, for_profile = split_overrides(settings)
    profile = load_profile(sweep.profile, for_profile, root)
    base = load_experiment(sweep.experiment, root=root)
    grid = points(sweep, base, file, for_experiment)
    return Study(sweep, profile, load_devices(profile, root), grid)


def points(
    sweep: Sweep, base: Experiment, file: Path, overrides: Sequence[str] = ()
) -> list[Point]:
    """List the combinations of the grid as experiments: all with the first seed, then the next.

    Raises:
        ConfigError: a combination is no valid experiment, or an override sets a key of the grid.
    """
    values = base.model_dump()
    for key, value in sweep.set.items():
        _assign(values, key, value, file)
    for setting in overrides:
        _require_fixed(setting, sweep, file)
        override(values, setting)
    grid, problems = list[Point](), list[str]()
    for seed in sweep.seeds or (values["seed"],):
        for settings in _combinations(sweep.grid):
            changed = copy.deepcopy(values)
            for key, value in (settings | {"seed": seed}).items():
                _assign(changed, key, copy.deepcopy(value), file)
            try:
                grid.append(Point(settings, Experiment.model_validate(changed)))
            except ValidationError as error:
                problems += [explain(item, Experiment, file, overrides) for item in error.errors()]
    if problems:
        raise refusal(list(dict.fromkeys(problems)), file)
    return grid


def names(key: str) -> list[str]:
    """Split a key of the grid into the keys of the experiment that it stands for."""
    return [name.strip() for name in key.split(",")]


def shown(value: object) -> str:
    """Write a value of the grid as its file has it."""
    return value if isinstance(value, str) else json.dumps(value, default=str)


def federation(
    profile: Profile, devices: Mapping[str, Device], root: Path = CONFIGS
) -> dict[str, Any]:
    """Return all of a federation that its runs depend on; its name and ports do not matter."""
    words = {"name", "description", "sources", "ports"}
    networks = load_networks(profile, devices, root)
    return {
        "profile": profile.model_dump(mode="json", exclude=words),
        "devices": {n: d.model_dump(mode="json", exclude=words) for n, d in devices.items()},
        "networks": [n and n.model_dump(include={*Network.model_fields}) for n in networks],
    }


def identity(experiment: Experiment, data: str, federation: Mapping[str, Any]) -> str:
    """Return what a run is known by: a hash of experiment, key of its data, and federation."""
    words = {"name", "description"}
    inputs = [experiment.model_dump(mode="json", exclude=words), data, federation]
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:16]


def _combinations(grid: Mapping[str, Sequence[Any]]) -> Iterator[dict[str, Any]]:
    for values in itertools.product(*grid.values()):
        settings: dict[str, Any] = {}
        for key, value in zip(grid, values, strict=True):
            keys = names(key)
            settings |= zip(keys, value if len(keys) > 1 else [value], strict=True)
        yield settings


def _assign(values: dict[str, Any], key: str, value: object, file: Path) -> None:
    try:
        assign(values, key, value)
    except ValueError as error:
        raise ConfigError(f"{file}: {key}: {error}", f"edit {file}") from None


def _require_fixed(setting: str, sweep: Sweep, file: Path) -> None:
    key = setting.partition("=")[0]
    if key in sweep.varied():
        raise ConfigError(
            f"--set {setting}: {key} differs between the runs of {sweep.name}",
            f"leave it out, or edit {file}",
        )


def _problems(sweep: Sweep) -> Iterator[tuple[str, str]]:
    """List keys of a sweep that contradict each other or are no list, and what is wrong."""
    counts = Counter(name for key in sweep.grid for name in names(key))
    for key, values in sweep.grid.items():
        keys = names(key)
        for name in keys:
            if name == "seed":
                yield f"grid.{key}", "seeds have a key beside `grid`, such as `seeds: 3`"
            elif name in ("name", "description"):
                yield f"grid.{key}", f"{name} says nothing of what is learned: vary another key"
            elif counts[name] > 1 or name in sweep.set:
                where = "in `set` and in `grid`" if name in sweep.set else "in `grid`"
                yield f"grid.{key}", f"{name} is given twice {where}: leave one out"
        if not values or len({repr(value) for value in values}) < len(values):
            found = explain_value(list(values))
            yield f"grid.{key}", f"expected a list of different values, found {found}"
        for value in values:
            if len(keys) > 1 and not (isinstance(value, list) and len(value) == len(keys)):
                found = explain_value(value)
                yield f"grid.{key}", f"expected lists of {len(keys)} values, found {found}"
