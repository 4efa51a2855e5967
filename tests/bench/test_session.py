"""The benchmark itself, with parts that are not real."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

FOLDER = Path(__file__).parent
MODULES = sorted(
    path.stem for path in FOLDER.glob("*.py") if not path.stem.startswith(("_", "test_"))
)


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, ModuleType]]:
    """The modules of `make bench`, which import each other by their bare names."""
    monkeypatch.syspath_prepend(FOLDER)
    yield {name: importlib.import_module(name) for name in MODULES}
    for name in MODULES:
        del sys.modules[name]


def test_a_part_that_fails_is_named_and_costs_no_row(
    bench: dict[str, ModuleType], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    row, file, said = bench["row"].row, tmp_path / "bench" / "bench.json", list[str]()
    seen: list[list[str]] = []

    def names() -> list[str]:
        return [each["name"] for each in json.loads(file.read_text())]

    def fails(command: str) -> Iterator[object]:
        yield row("first", [1.0, 3.0], "s", command, more_is_better=False)
        seen.append(names())
        raise FileNotFoundError("/var/run/docker.sock")

    def works(command: str) -> Iterator[object]:
        yield row("second", [2.0], "s", command, [4.0], more_is_better=False)
        yield row("first", [5.0], "s", command, more_is_better=False)

    session = bench["session"].Session(file, said.append)
    session.measure({"fails": fails, "works": works})

    assert seen == [["first"]], "a row is in the file before the next one is measured"
    assert session.failed == ["fails"]
    assert [each.name for each in session.rows] == ["first", "second", "first"]
    assert said == [
        f"rows are recorded in {file} as they are measured",
        "first: 2 s",
        "the part fails failed: FileNotFoundError: /var/run/docker.sock",
        "the part fails took 0 s",
        "second: 2 s",
        "first: 5 s",
        "the part works took 0 s",
    ]
    assert "in fails" in capsys.readouterr().err, "the traceback"
    first, second = json.loads(file.read_text())
    assert (first["value"], second["ratio"]) == (5.0, 2.0)
    assert first["command"] == "make bench BENCH=works"


def test_rows_of_other_parts_stay(bench: dict[str, ModuleType], tmp_path: Path) -> None:
    file = tmp_path / "bench.json"
    file.write_text('[{"name": "other", "value": 1.0}]')
    row = bench["row"].row("new", [1.0], "s", "c", more_is_better=False)
    bench["session"].Session(file, lambda _: None).measure({"part": lambda _: [row]})
    assert [each["name"] for each in json.loads(file.read_text())] == ["other", "new"]


def test_an_interrupt_is_no_failure_of_a_part(bench: dict[str, ModuleType], tmp_path: Path) -> None:
    def interrupted(_: str) -> Iterator[object]:
        raise KeyboardInterrupt

    session = bench["session"].Session(tmp_path / "bench.json", lambda _: None)
    with pytest.raises(KeyboardInterrupt):
        session.measure({"interrupted": interrupted})
    assert session.failed == []


def programs() -> Iterator[str]:
    """The programs that parts run in containers, which stand in strings."""
    for name in MODULES:
        for node in ast.walk(ast.parse((FOLDER / f"{name}.py").read_text())):
            if isinstance(node, ast.Constant) and "\nfrom fedbench" in str(node.value):
                yield str(node.value)


def test_what_programs_in_strings_import_is_there() -> None:
    assert list(programs())
    for program in programs():
        for node in ast.walk(ast.parse(program)):
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("fedbench"):
                for alias in node.names:
                    home = importlib.import_module(str(node.module))
                    within = f"{node.module}.{alias.name}"
                    assert hasattr(home, alias.name) or importlib.util.find_spec(within), within


def test_where_a_node_stops_is_before_its_first_failure(bench: dict[str, ModuleType]) -> None:
    lossy = bench["lossy"]

    def cell(value: float, ended: str, who: str = "ours", sweep: str = "loss") -> object:
        return lossy.Cell(sweep, value, who, ended, 3, 100, 3, 1.5, 20.0, 1, 7, "a | b")

    cells = [
        cell(0.3, "finished"),
        cell(0.1, "finished"),
        cell(0.5, "failed"),
        cell(0.6, "finished"),
        cell(0.5, "finished", who="stock"),
        cell(10.0, "finished", sweep="latency"),
    ]

    assert lossy._worst(cells, "loss", "ours") == 0.3
    assert lossy._worst(cells, "dropout", "ours") == 0
    first, *_, last = lossy.table(cells).splitlines()[2:]
    assert first == "| latency 10 s | ours | finished | 3 of 100 | 3 | 1.5 | 20 | 1 | a / b |"
    assert last.startswith("| loss 60 % | ours | finished |")
