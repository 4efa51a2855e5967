"""A device profile's figures as text: dotted key -> value with its unit. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from fedbench.explain import nearest
from fedbench.units import format_bytes, format_rate, format_seconds

NOT_FIGURES = ("name", "description", "sources")


def figures(values: Mapping[str, Any]) -> dict[str, str]:
    """`{"memory": "8 GiB", "speed.mobilenet_v2": "237 samples/s", ...}` of a `Device`'s values.

    The keys are those of `sources`; what the device does not have is left out.
    """
    return dict(_leaves("", {k: v for k, v in values.items() if k not in NOT_FIGURES}))


def disagreements(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Keys of a `Device`'s values that do not fit its others, each with what is wrong."""
    known = figures(values)
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
        if isinstance(value, Mapping):
            yield from _leaves(f"{key}.", value)
        elif value is not None:
            yield key, _text(key, value)


def _text(key: str, value: Any) -> str:
    match key.split("."):
        case ["memory"] | ["gpu", "memory"]:
            return format_bytes(value)
        case ["speed" | "capacity", _]:
            return f"{value:.4g} samples/s"
        case ["watts", _]:
            return f"{value:g} W"
        case ["network", "down" | "up"]:
            return format_rate(value)
        case ["network", "delay" | "jitter"]:
            return format_seconds(value)
        case ["network", "loss"] | ["gpu", "share"]:
            return f"{100 * value:.4g} %"
        case _:
            return value if isinstance(value, str) else f"{value:g}"
