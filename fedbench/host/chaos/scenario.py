"""A chaos scenario: what is done to whom and when, and what has to become of the run. Pure.

`configs/chaos/<name>.yaml` has one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import AfterValidator, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from fedbench.config import CONFIGS, Experiment, Model, Name, Network, assign, load, refusal
from fedbench.config.explain import explain, nearest
from fedbench.config.fields import Seconds, Share
from fedbench.errors import ConfigError
from fedbench.wire import Misbehaviour

FOLDER = CONFIGS / "chaos"

FaultName = Literal[
    "kill", "stop", "crash", "unwatch", "pause", "out-of-memory", "starve", "cut", "link",
    "misbehave", "clock", "disk-full", "down",
]  # fmt: skip
"""In the order in which a matrix goes through them: the last one leaves nothing to go on with."""
Who = Literal["client", "faulty", "server", "prometheus", "governor", "federation"]
ProcessName = Literal["main", "worker", "executor", "serverapp"]
Phase = Literal["training", "aggregating", "checkpoint", "between"]

# The keys that a fault needs beside the usual ones, and whom it can meet.
_NEEDS: dict[FaultName, set[str]] = {
    "crash": {"process"},
    "pause": {"lasts"},
    "starve": {"lasts", "share"},
    "cut": {"lasts"},
    "link": {"lasts", "network"},
    "misbehave": {"misbehaviour"},
}
_MAY_HAVE: dict[FaultName, set[str]] = {"misbehave": {"lasts"}}
_OF_FAULTS = set[str]().union(*_NEEDS.values())
_CONTAINERS: tuple[Who, ...] = ("client", "server", "prometheus")
_MEETS: dict[FaultName, tuple[Who, ...]] = {
    "kill": _CONTAINERS,
    "stop": _CONTAINERS,
    "crash": ("client", "server"),
    "unwatch": ("governor",),
    "pause": _CONTAINERS,
    "out-of-memory": ("client",),
    "starve": ("client",),
    "cut": ("client",),
    "link": ("client",),
    "misbehave": ("faulty",),
    "clock": ("server",),
    "disk-full": ("server",),
    "down": ("federation",),
}
_PROCESSES: dict[Who, tuple[ProcessName, ...]] = {
    "client": ("main", "worker"),
    "server": ("main", "executor", "serverapp"),
}


def _pattern(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"expected a regular expression ({error})") from None
    return text


Pattern = Annotated[str, AfterValidator(_pattern)]
"""A regular expression, searched for without regard to case."""


class When(Model):
    """When it is done: so many seconds after a phase of a round began; round 0 is before the run.

    `aggregating` begins when the first client has trained, `checkpoint` when the last has
    evaluated, `between` when the round is recorded.
    """

    round: Annotated[int, Field(ge=0)] = 2
    phase: Phase = "training"
    after: Seconds = 1.0


class Expectation(Model):
    """What has to become of the run.

    `says` is why a run that fails did, `missing` why the victim misses rounds; without it, nobody
    may miss any. `within` is how soon it must be known, in wall seconds; without it, nobody need
    know. A run that `resumes` has to finish after RESUME.
    """

    end: Literal["finished", "failed"] = "finished"
    says: Pattern = ""
    missing: Pattern = ""
    back: bool = False
    within: Seconds | None = None
    rounds_lost: Annotated[int, Field(ge=0)] = 0
    resumes: bool = False


class Scenario(Model):
    """One fault, and what is expected of the federation.

    `who` is `client` for an ordinary one, or `faulty` for the one that can misbehave; `set` changes
    keys of the experiment. `fast` scenarios are the subset that CI runs.
    """

    name: Name
    description: str
    fault: FaultName
    who: Who
    when: When = When()
    lasts: Seconds | None = None
    share: Share | None = None
    network: Network | None = None
    process: ProcessName | None = None
    misbehaviour: Misbehaviour | None = None
    set: dict[str, Any] = Field(default={})
    fast: bool = False
    expected: Expectation = Expectation()

    @model_validator(mode="after")
    def _keys_fit_the_fault(self) -> Self:
        for key, problem in _problems(self):
            raise PydanticCustomError("figure", "{problem}", {"key": key, "problem": problem})
        return self

    @property
    def place(self) -> tuple[int, str]:
        """Where it comes in a matrix: by its fault, then by its name."""
        return get_args(FaultName).index(self.fault), self.name


def _problems(scenario: Scenario) -> Iterator[tuple[str, str]]:
    fault, needed = scenario.fault, _NEEDS.get(scenario.fault, set())
    given = {key for key in _OF_FAULTS if getattr(scenario, key) is not None}
    for key in sorted(needed - given):
        yield key, f"this key is missing: fault {fault} needs it"
    for key in sorted(given - needed - _MAY_HAVE.get(fault, set())):
        yield key, f"fault {fault} has no such key"
    if scenario.who not in _MEETS[fault]:
        yield "who", f"expected {' or '.join(_MEETS[fault])} for fault {fault}"
    elif fault == "crash" and scenario.process not in _PROCESSES[scenario.who]:
        expected = " or ".join(_PROCESSES[scenario.who])
        yield "process", f"expected {expected} of a {scenario.who}, found {scenario.process!r}"


def names(folder: Path = FOLDER) -> list[str]:
    """Return the names of all scenarios."""
    return sorted(path.stem for path in folder.glob("*.yaml"))


def load_scenario(name: str, folder: Path = FOLDER) -> Scenario:
    """Return the scenario of that name, or in that file.

    Raises:
        ConfigError: there is none, or something in it is not as expected.
    """
    if not name.endswith((".yaml", ".yml")):
        path = folder / f"{name}.yaml"
        if "/" in name or not path.is_file():
            known = names(folder)
            hint = f"known scenarios: {', '.join(known)}; others go into {folder}"
            raise ConfigError(f"unknown scenario {name!r}{nearest(name, known)}", hint)
        name = str(path)
    return load(Scenario, "scenario", name, (), CONFIGS)


def load_scenarios(chosen: Sequence[str] = (), folder: Path = FOLDER) -> list[Scenario]:
    """Return the chosen scenarios, or all, in the order in which they are run.

    Raises:
        ConfigError: as `load_scenario`, or two have one name.
    """
    loaded = [load_scenario(name, folder) for name in chosen or names(folder)]
    twins = {one.name for one in loaded if sum(one.name == other.name for other in loaded) > 1}
    if twins:
        raise ConfigError(f"two scenarios are named {', '.join(sorted(twins))}")
    return sorted(loaded, key=lambda scenario: scenario.place)


def experiment_of(scenario: Scenario, base: Experiment, clients: Sequence[str]) -> Experiment:
    """Return the experiment that a scenario is run with, on these clients.

    Raises:
        ConfigError: what the scenario sets is no experiment's.
    """
    values = base.model_dump()
    where = f"scenario {scenario.name}"
    try:
        for key, value in ({"clients": list(clients)} | scenario.set).items():
            assign(values, key, value)
        return Experiment.model_validate(values)
    except ValidationError as error:
        problems = [explain(item, Experiment, f"{where}: set", ()) for item in error.errors()]
        raise refusal(problems, FOLDER / f"{scenario.name}.yaml") from None
    except ValueError as error:
        raise ConfigError(f"{where}: set: {error}") from None
