"""Values of a device profile: as text with units, by dotted key, and how they agree. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from fedbench.config.explain import nearest
from fedbench.config.units import format_bytes, format_rate, format_seconds, format_share

_NOT_MEASURABLE = ("name", "description", "sources", "share")
_TEXTS: dict[str, Callable[[Any], str]] = {
    "memory": format_bytes,
    "speed": "{:.4g} samples/s".format,
    "capacity": "{:.4g} samples/s".format,
    "watts": "{:g} W".format,
    "down": format_rate,
    "up": format_rate,
    "delay": format_seconds,
    "jitter": format_seconds,
    "loss": format_share,
}


def values_as_text(values: Mapping[str, Any]) -> dict[str, str]:
    """Return `{"memory": "8 GiB", "speed.mobilenet_v2": "237 samples/s", ...}` of a `Device`.

    The keys are as in `sources`. What the device does not have is left out.
    """
    return dict(_leaves("", values))


def disagreements(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """List keys of a `Device`'s values that contradict others, each with what is wrong."""
    known = values_as_text(values)
    for key in values["sources"]:
        if key not in known:
            yield f"sources.{key}", "no such figure" + nearest(key, list(known))
    for model, together in values["capacity"].items():
        if model not in values["speed"]:
            yield f"capacity.{model}", f"expected only with a speed.{model}"
        elif together < values["speed"][model]:
            key = f"capacity.{model}"
            yield key, _too_little(known, key, f"speed.{model}")
    if values["watts"] and values["watts"]["load"] < values["watts"]["idle"]:
        yield "watts.load", _too_little(known, "watts.load", "watts.idle")


def _too_little(known: Mapping[str, str], key: str, least: str) -> str:
    return f"expected at least {least}, {known[least]}, found {known[key]}"


def _leaves(prefix: str, values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, value in values.items():
        key = prefix + name
        if name in _NOT_MEASURABLE:
            continue
        if isinstance(value, Mapping):
            yield from _leaves(f"{key}.", value)
        elif value is not None:
            yield key, _text(key, value)


def _text(key: str, value: Any) -> str:
    names = key.split(".")
    if text := _TEXTS.get(names[-1]) or _TEXTS.get(names[0]):
        return text(value)
    return value if isinstance(value, str) else f"{value:g}"
