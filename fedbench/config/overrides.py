"""`--set key=value`: which configuration a setting is of, and what it changes there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fedbench.config.experiment import Experiment
from fedbench.config.explain import nearest
from fedbench.config.plain_yaml import NotYamlError, parse
from fedbench.config.profile import Profile
from fedbench.errors import ConfigError

# Keys of which a text is short for keys with that `name`: `partition: iid`.
_SHORT = ("partition",)


def split_overrides(settings: Sequence[str]) -> tuple[list[str], list[str]]:
    """Sort `--set` values: those of the experiment, those of the profile.

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


def assign(values: dict[str, Any], key: str, value: object) -> None:
    """Set a dotted key in nested mappings.

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
    """Set what a `--set` option says.

    Raises:
        ConfigError: its value is not YAML, or something on the way to its key is no mapping.
    """
    key, _, text = setting.partition("=")
    try:
        value = parse(text)
    except NotYamlError:
        raise ConfigError(f"--set {setting}: the value is not YAML") from None
    try:
        assign(values, key, value)
    except ValueError as error:
        raise ConfigError(f"--set {setting}: {error}") from None
