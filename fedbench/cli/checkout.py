"""The checkout that the commands work in, and what they load and start of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fedbench.cli.output import say
from fedbench.config import (
    Device,
    Experiment,
    Profile,
    load_devices,
    load_experiment,
    load_profile,
    split_overrides,
)
from fedbench.engines.containers.runtime.stack import Stack
from fedbench.host.setup.locks import federation_lock
from fedbench.host.setup.places import Places

places = Places(Path(__file__).resolve().parents[2])


def load(
    profile: str, experiment: str, settings: list[str] | None
) -> tuple[Experiment, Profile, dict[str, Device]]:
    """Load what a command line names, each with the settings that concern it."""
    for_experiment, for_profile = split_overrides(settings or [])
    federation = load_profile(profile, for_profile)
    chosen = load_experiment(experiment, for_experiment)
    return chosen, federation, load_devices(federation)


def bring_up(
    profile: Profile, devices: dict[str, Device], experiment: Experiment, source: Path | None
) -> Stack:
    """Bring a federation up with its data, and wait until its clients are ready."""
    from fedbench.engines.containers.bring_up import bring_up as bring_up_containers

    with federation_lock():
        return bring_up_containers(places, profile, devices, experiment, source, say)


def ensure_up(
    profile: str, settings: list[str], experiment: Experiment, source: Path | None
) -> Stack:
    """Return the federation of that profile: the one that is up, or brought up now."""
    federation = load_profile(profile, settings)
    known = Stack.load(places)
    if known and known.profile == federation:
        return known
    return bring_up(federation, load_devices(federation), experiment, source)


@contextmanager
def saying_what_stays_up() -> Iterator[None]:
    """Say that a federation stays up, where the block brought it up and however it ends."""
    before = Stack.load(places)
    try:
        yield
    finally:
        if not before and Stack.load(places):
            say("the federation stays up: `make down` takes it down")
