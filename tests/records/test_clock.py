"""Wall seconds become emulated ones at one door, and nowhere else."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import fedbench
from fedbench.records import ClientRound
from fedbench.records.clock import REAL_TIME, Dilation, EmulatedSeconds, WallSeconds

PACKAGE = Path(fedbench.__file__).parent
DOOR = "records/clock.py"
factors = st.floats(1, 50).map(Dilation)
amounts = st.floats(0, 1e6)


@given(factors, amounts)
def test_there_and_back_is_the_same(dilation: Dilation, seconds: float) -> None:
    assert dilation.wall(dilation.emulated(WallSeconds(seconds))) == pytest.approx(seconds)
    assert dilation.emulated_rate(dilation.wall_rate(seconds)) == pytest.approx(seconds)


@given(factors, st.floats(1, 1e6), st.floats(0.1, 1e4))
def test_as_many_samples_come_out_on_either_clock(
    dilation: Dilation, seconds: float, rate: float
) -> None:
    wall = dilation.wall(EmulatedSeconds(seconds))

    assert dilation.wall_rate(rate) * wall == pytest.approx(rate * seconds)


def test_a_slowed_device_takes_longer_on_the_wall() -> None:
    assert Dilation(2.5).wall(EmulatedSeconds(4.0)) == 10.0
    assert Dilation(2.5).emulated(WallSeconds(10.0)) == 4.0
    assert REAL_TIME.emulated(WallSeconds(10.0)) == 10.0


def test_it_is_a_number_on_disk() -> None:
    client = ClientRound.model_validate({"client": "a", "device": "laptop", "dilation": 2.5})

    assert json.loads(client.model_dump_json())["dilation"] == 2.5
    assert isinstance(client.dilation, Dilation)
    assert f"{client.dilation:g}" == "2.5"


def named(node: ast.expr) -> Iterator[str]:
    """Names that an operand consists of; not those that a function is called with."""
    match node:
        case ast.Name(id=name):
            yield name
        case ast.Attribute(attr=name):
            yield name
        case ast.Subscript(value=value, slice=ast.Constant(value=str(key))):
            yield key
            yield from named(value)
        case ast.BinOp(left=left, right=right):
            yield from named(left)
            yield from named(right)
        case ast.IfExp(body=body, orelse=orelse):
            yield from named(body)
            yield from named(orelse)
        case ast.BoolOp(values=values):
            for value in values:
                yield from named(value)
        case ast.Call(func=ast.Attribute(attr="get"), args=[ast.Constant(value=str(key)), *_]):
            yield key
        case ast.Call(func=ast.Name(id="float" | "max" | "min" | "round"), args=arguments):
            for argument in arguments:
                yield from named(argument)


def arithmetic(source: str) -> list[int]:
    """Lines that calculate with a dilation."""
    lines = []
    for node in ast.walk(ast.parse(source)):
        operands = {
            ast.BinOp: lambda node: [node.left, node.right],
            ast.AugAssign: lambda node: [node.target, node.value],
        }.get(type(node))
        if operands and any("dilation" in name for o in operands(node) for name in named(o)):
            lines.append(node.lineno)
    return lines


def test_nobody_else_calculates_with_a_dilation() -> None:
    """What a convolution calls its dilation has no seconds."""
    others = [path for path in PACKAGE.rglob("*.py") if not path.match(f"*/{DOOR}")]
    found = {str(path): arithmetic(path.read_text(encoding="utf-8")) for path in others}

    assert len(others) > 100
    assert {path: lines for path, lines in found.items() if lines} == {}


@pytest.mark.parametrize(
    "line",
    [
        "seconds / summary.dilation",
        "dilation * seconds",
        "seconds /= client.dilation",
        'seconds / facts["dilation"]',
        'seconds / facts.get("dilation", 1.0)',
        "value / (dilation if emulated else 1)",
        "3 * seconds / float(self._dilation)",
    ],
)
def test_such_a_calculation_is_seen(line: str) -> None:
    """Else the test above could not fail."""
    assert arithmetic(line) == [1]
    assert arithmetic("dilation.emulated(seconds) * 2") == []
