"""What a configuration writes with a unit <-> plain numbers: bytes, bit/s, seconds, samples/s."""

from __future__ import annotations

import re
from collections.abc import Sequence

_BYTES = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}
_BITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9}
# Far above the figures of any computer; with its largest unit it is still finite.
_LIMIT = 1e18
_SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0}

EPOCH_IMAGES = 50_000
"""Images of the epoch that a speed in `s/epoch` speaks of: CIFAR-10's training set."""
REFERENCE_SPEED = EPOCH_IMAGES / 225
"""Samples/s of `1x`: MobileNetV2 on the i5-2400 of Negi & Chinara, Table II (225 s an epoch)."""


def parse_bytes(value: object) -> int:
    """`8GiB`, `512m` or a number of bytes -> bytes (1 KiB = 1024 B).

    Raises:
        ValueError: it is not a size.
    """
    if (parsed := _split(value, r"([kmgt]?)(?:i?b)?")) is None:
        raise ValueError("expected a size such as 8GiB or 512MiB")
    return int(parsed[0] * _BYTES[parsed[1]])


def parse_rate(value: object) -> float:
    """`10Mbit`, `7.6 Mbit/s` or a number of bit/s -> bit/s (1 Mbit = 10^6 bit).

    Raises:
        ValueError: it is not a rate.
    """
    parsed = _split(value, r"([kmg]?)(?:bit(?:/s)?|bps)?")
    if parsed is None or not parsed[0]:
        raise ValueError("expected a rate such as 10Mbit or 500kbit")
    return parsed[0] * _BITS[parsed[1]]


def parse_seconds(value: object) -> float:
    """`10ms`, `0.5s` or a number of seconds -> seconds.

    Raises:
        ValueError: it is not a duration.
    """
    if (parsed := _split(value, r"(us|ms|s|)")) is None:
        raise ValueError("expected a time such as 10ms or 0.5s")
    return parsed[0] * _SECONDS[parsed[1] or "s"]


def parse_share(value: object) -> float:
    """`0.5%` or a number from 0 to 1 -> 0 to 1.

    Raises:
        ValueError: it is not a share.
    """
    parsed = _split(value, r"(%?)")
    if parsed is None or (share := parsed[0] / (100 if parsed[1] else 1)) > 1:
        raise ValueError("expected a share such as 0.5% or 0.005")
    return share


def parse_speed(value: object) -> float:
    """`225 s/epoch`, `39.1 samples/s`, `0.95x` or a number of samples/s -> samples/s.

    An epoch has `EPOCH_IMAGES` images of 32x32 pixels, in batches of 32; `x` is a multiple of the
    reference computer's `REFERENCE_SPEED`.

    Raises:
        ValueError: it is not a speed.
    """
    parsed = _split(value, r"(s/epoch|samples/s|x|)")
    if parsed is None or not parsed[0]:
        raise ValueError("expected a speed such as `225 s/epoch`, `39.1 samples/s` or `0.95x`")
    number, unit = parsed
    if unit == "s/epoch":
        return EPOCH_IMAGES / number
    return number * (REFERENCE_SPEED if unit == "x" else 1)


def format_bytes(value: int) -> str:
    """Bytes as `8 GiB`, to four digits."""
    return _format(value, ("B", "KiB", "MiB", "GiB", "TiB"), 1024)


def format_rate(value: float) -> str:
    """bit/s as `10 Mbit/s`, to four digits."""
    return _format(value, ("bit/s", "kbit/s", "Mbit/s", "Gbit/s"), 1000)


def format_seconds(value: float) -> str:
    """Seconds as `10 ms` or `0.5 s`: below a tenth in ms."""
    return f"{value * 1000:.4g} ms" if value < 0.1 else f"{value:.4g} s"


def format_share(value: float) -> str:
    """0 to 1 as `0.5 %`, to four digits."""
    return f"{100 * value:.4g} %"


def _format(value: float, units: Sequence[str], step: int) -> str:
    power = sum(value >= step**power for power in range(1, len(units)))
    return f"{value / step**power:.4g} {units[power]}"


def _split(value: object, unit: str) -> tuple[float, str] | None:
    """Split into a number and its unit, the pattern's one group; None where it is neither."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return (value, "") if 0 <= value < _LIMIT else None
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*" + unit, str(value).strip().lower())
    if match is None or isinstance(value, bool) or float(match[1]) >= _LIMIT:
        return None
    return float(match[1]), match[2]
