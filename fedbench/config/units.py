"""Numbers with units: text of a configuration -> plain numbers, and numbers -> text for people.

Plain numbers are in bytes, bit/s, seconds, samples/s, or shares from 0 to 1.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

_BYTES = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}
_BITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9}
# Far above what any computer has; with its largest unit it is still finite.
_LIMIT = 1e18
_SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0}

EPOCH_IMAGES = 50_000
"""Images of an epoch where a speed is in `s/epoch`: CIFAR-10's training set."""
PAPER_PC_SPEED = EPOCH_IMAGES / 225
"""Samples/s of `1x`: MobileNetV2 on the i5-2400 of Negi & Chinara, Table II (225 s an epoch)."""


def parse_bytes(value: object) -> int:
    """Parse `8GiB`, `512m` or a number of bytes -> bytes (1 KiB = 1024 B).

    Raises:
        ValueError: the value is not a size.
    """
    if (number_and_unit := _split(value, r"([kmgt]?)(?:i?b)?")) is None:
        raise ValueError("expected a size such as 8GiB or 512MiB")
    number, unit = number_and_unit
    return int(number * _BYTES[unit])


def parse_rate(value: object) -> float:
    """Parse `10Mbit`, `7.6 Mbit/s` or a number of bit/s -> bit/s (1 Mbit = 10^6 bit).

    Raises:
        ValueError: the value is not a rate.
    """
    number, unit = _split(value, r"([kmg]?)(?:bit(?:/s)?|bps)?") or (0.0, "")
    if not number:
        raise ValueError("expected a rate such as 10Mbit or 500kbit")
    return number * _BITS[unit]


def parse_seconds(value: object) -> float:
    """Parse `10ms`, `0.5s` or a number of seconds -> seconds.

    Raises:
        ValueError: the value is not a duration.
    """
    if (number_and_unit := _split(value, r"(us|ms|s|)")) is None:
        raise ValueError("expected a time such as 10ms or 0.5s")
    number, unit = number_and_unit
    return number * _SECONDS[unit or "s"]


def parse_share(value: object) -> float:
    """Parse `0.5%` or a number from 0 to 1 -> 0 to 1.

    Raises:
        ValueError: the value is not a share.
    """
    number, unit = _split(value, r"(%?)") or (math.inf, "")
    share = number / 100 if unit else number
    if share > 1:
        raise ValueError("expected a share such as 0.5% or 0.005")
    return share


def parse_speed(value: object) -> float:
    """Parse `225 s/epoch`, `39.1 samples/s`, `0.95x` or a number of samples/s -> samples/s.

    An epoch has `EPOCH_IMAGES` images of 32x32 pixels, in batches of 32. `x` is a multiple of
    `PAPER_PC_SPEED`.

    Raises:
        ValueError: the value is not a speed.
    """
    number, unit = _split(value, r"(s/epoch|samples/s|x|)") or (0.0, "")
    if not number:
        raise ValueError("expected a speed such as `225 s/epoch`, `39.1 samples/s` or `0.95x`")
    if unit == "s/epoch":
        return EPOCH_IMAGES / number
    return number * (PAPER_PC_SPEED if unit == "x" else 1)


def format_bytes(value: int) -> str:
    """Format bytes as `8 GiB`, to four digits."""
    return _format(value, ("B", "KiB", "MiB", "GiB", "TiB"), 1024)


def format_rate(value: float) -> str:
    """Format bit/s as `10 Mbit/s`, to four digits."""
    return _format(value, ("bit/s", "kbit/s", "Mbit/s", "Gbit/s"), 1000)


def format_seconds(value: float) -> str:
    """Format seconds as `10 ms` or `0.5 s`: below a tenth in ms."""
    return f"{value * 1000:.4g} ms" if value < 0.1 else f"{value:.4g} s"


def format_share(value: float) -> str:
    """Format a share from 0 to 1 as `0.5 %`, to four digits."""
    return f"{100 * value:.4g} %"


def format_duration(seconds: float) -> str:
    """Format seconds as people say them, such as `3 min 20 s` or `2 h 5 min`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def format_number(value: float | None, form: str) -> str:
    """Format a number by a format specification such as `.2f`; a dash where it is None."""
    return "-" if value is None else format(value, form)


def _format(value: float, units: Sequence[str], step: int) -> str:
    power = sum(value >= step**power for power in range(1, len(units)))
    return f"{value / step**power:.4g} {units[power]}"


def _split(value: object, unit: str) -> tuple[float, str] | None:
    """Split a value into a number and its unit, one group of the pattern; None if it is neither."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return (value, "") if 0 <= value < _LIMIT else None
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*" + unit, str(value).strip().lower())
    if match is None or isinstance(value, bool) or float(match[1]) >= _LIMIT:
        return None
    return float(match[1]), match[2]
