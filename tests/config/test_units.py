from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedbench.config.units import (
    EPOCH_IMAGES,
    PAPER_PC_SPEED,
    format_bytes,
    format_rate,
    format_seconds,
    format_share,
    parse_bytes,
    parse_rate,
    parse_seconds,
    parse_share,
    parse_speed,
)

PARSERS = [parse_bytes, parse_rate, parse_seconds, parse_share, parse_speed]
SMALL = st.floats(0, 1e6).map(lambda value: round(value, 3))


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("8GiB", 8 * 2**30),
        ("8gb", 8 * 2**30),
        ("8G", 8 * 2**30),
        ("512m", 512 * 2**20),
        (" 1.5 GiB ", 3 * 2**29),
        ("1KiB", 1024),
        ("2TiB", 2 * 2**40),
        ("300B", 300),
        (300, 300),
    ],
)
def test_a_size_has_a_unit_or_is_in_bytes(text: object, size: int) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("10Mbit", 1e7),
        ("7.6 Mbit/s", 7.6e6),
        ("1gbps", 1e9),
        ("500kbit", 5e5),
        ("300 bit/s", 300.0),
        (1e6, 1e6),
    ],
)
def test_a_rate_has_a_unit_or_is_in_bits_a_second(text: object, rate: float) -> None:
    assert parse_rate(text) == pytest.approx(rate)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("10ms", 0.01), ("0.5s", 0.5), ("250us", 2.5e-4), ("2", 2.0), (0, 0.0), (1.5, 1.5)],
)
def test_a_time_has_a_unit_or_is_in_seconds(text: object, seconds: float) -> None:
    assert parse_seconds(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("text", "share"), [("0.5%", 0.005), ("100 %", 1.0), (0.25, 0.25), ("1", 1.0), (0, 0.0)]
)
def test_a_share_is_in_percent_or_below_one(text: object, share: float) -> None:
    assert parse_share(text) == pytest.approx(share)


@pytest.mark.parametrize(
    ("text", "speed"),
    [
        ("225 s/epoch", 50_000 / 225),
        ("1x", 50_000 / 225),
        ("0.5X", 25_000 / 225),
        ("39.1 samples/s", 39.1),
        (12, 12.0),
    ],
)
def test_a_speed_is_per_epoch_per_second_or_relative(text: object, speed: float) -> None:
    assert parse_speed(text) == pytest.approx(speed)


@pytest.mark.parametrize("parse", PARSERS)
@pytest.mark.parametrize(
    "text",
    ["", "lots", "-1", -1, "1e3", "1 2", "1.", ".5", "5 parsecs", "٣", True, None, [1],
     math.inf, math.nan],
)  # fmt: skip
def test_what_is_no_quantity_is_refused(parse: object, text: object) -> None:
    with pytest.raises(ValueError, match=r"^expected a (size|rate|time|share|speed) such as "):
        parse(text)  # type: ignore[operator]


@pytest.mark.parametrize(
    ("parse", "text"),
    [
        (parse_bytes, "8GiBs"),
        (parse_bytes, "8 Gi B"),
        (parse_bytes, "10Mbit"),
        (parse_rate, "10MB"),
        (parse_rate, "10Mibit"),
        (parse_rate, "0Mbit"),
        (parse_rate, 0),
        (parse_seconds, "1min"),
        (parse_seconds, "10%"),
        (parse_share, "101%"),
        (parse_share, 1.01),
        (parse_share, "5ms"),
        (parse_speed, "225 s"),
        (parse_speed, "225 epochs/s"),
        (parse_speed, "0 s/epoch"),
        (parse_speed, 0),
    ],
)
def test_a_quantity_of_another_kind_is_refused(parse: object, text: object) -> None:
    with pytest.raises(ValueError, match=r"^expected a "):
        parse(text)  # type: ignore[operator]


@given(st.integers(0, 2**50))
def test_a_size_in_bytes_is_itself(size: int) -> None:
    assert parse_bytes(size) == parse_bytes(str(size)) == size


@given(st.integers(0, 2**20), st.sampled_from(["KiB", "MiB", "GiB"]))
def test_a_size_is_a_multiple_of_its_unit(number: int, unit: str) -> None:
    factor = {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30}[unit]
    assert parse_bytes(f"{number}{unit}") == parse_bytes(number * factor)


@given(SMALL.filter(bool), st.sampled_from(["kbit", "Mbit/s", "gbps"]))
def test_a_rate_is_a_multiple_of_its_unit(number: float, unit: str) -> None:
    factor = {"k": 1e3, "M": 1e6, "g": 1e9}[unit[0]]
    assert parse_rate(f"{number} {unit}") == pytest.approx(parse_rate(number * factor))


@given(SMALL)
def test_a_time_is_the_same_in_any_unit(seconds: float) -> None:
    milliseconds = f"{seconds * 1e3:.9f}ms"
    assert parse_seconds(milliseconds) == pytest.approx(parse_seconds(f"{seconds}s"))


@given(st.floats(0, 1).map(lambda value: round(value, 6)))
def test_a_share_is_the_same_in_percent(share: float) -> None:
    assert parse_share(f"{share * 100:.9f}%") == pytest.approx(parse_share(share))


@given(SMALL.filter(bool))
def test_a_speed_is_the_same_in_any_unit(speed: float) -> None:
    same = pytest.approx(parse_speed(f"{speed} samples/s"))
    assert parse_speed(f"{EPOCH_IMAGES / speed:.12f} s/epoch") == same
    assert parse_speed(f"{speed / PAPER_PC_SPEED:.12f}x") == same


@given(st.integers(0, 2**50), SMALL, st.floats(0, 1))
def test_what_is_printed_can_be_read_again(size: int, number: float, share: float) -> None:
    four_digits = {"rel": 1e-3, "abs": 1e-6}
    assert parse_bytes(format_bytes(size)) == pytest.approx(size, rel=1e-3, abs=1)
    assert parse_rate(format_rate(number + 1)) == pytest.approx(number + 1, **four_digits)
    if number < 9_999:  # more of them are printed with an exponent
        assert parse_seconds(format_seconds(number)) == pytest.approx(number, **four_digits)
    if share > 1e-5:
        assert parse_share(format_share(share)) == pytest.approx(share, **four_digits)


@pytest.mark.parametrize(
    ("printed", "text"),
    [
        (format_bytes(0), "0 B"),
        (format_bytes(6 * 2**30), "6 GiB"),
        (format_bytes(1023), "1023 B"),
        (format_rate(7.6e6), "7.6 Mbit/s"),
        (format_rate(1e9), "1 Gbit/s"),
        (format_seconds(0.0125), "12.5 ms"),
        (format_seconds(0.5), "0.5 s"),
        (format_share(0.005), "0.5 %"),
    ],
)
def test_quantities_are_printed_with_their_unit(printed: str, text: str) -> None:
    assert printed == text


@pytest.mark.parametrize("parse", PARSERS)
def test_what_no_computer_has_is_refused_not_infinite(parse: Callable[[object], float]) -> None:
    for value in (10**400, 1e300, "9" * 400, f"{'9' * 305}GiB", f"{'9' * 400} s/epoch", "9e9"):
        with pytest.raises(ValueError, match=r"^expected a "):
            parse(value)
