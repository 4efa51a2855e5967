from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from fedbench.errors import ConfigError
from fedbench.host.report.documents import Form, form_of, text
from fedbench.records.runs import Run

GOLDEN = Path(__file__).parents[2] / "golden"
NAME = "20260102-030405-digits"


@pytest.mark.parametrize(
    ("name", "form"),
    [(None, "markdown"), ("a.md", "markdown"), ("b.csv", "csv"), ("c.HTML", "html")],
)
def test_a_file_name_says_its_form(name: str | None, form: Form) -> None:
    assert form_of(Path(name) if name else None) == form


def test_a_name_of_no_form_is_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        form_of(Path("report.pdf"))
    assert caught.value.message == (
        "report.pdf: expected a name that ends in .md, .csv, .html, .htm"
    )
    assert caught.value.hint == "or say which with --format: markdown, csv, html"


def test_several_runs_are_first_set_side_by_side(tmp_path: Path) -> None:
    runs = [Run(Path(shutil.copytree(GOLDEN / "runs" / NAME, tmp_path / name))) for name in "ab"]
    report = text(runs, "markdown")
    assert report.startswith("# 2 runs\n\n| run | experiment |")
    assert "| round | a | b |" in report
    assert report.endswith((GOLDEN / "report.md").read_text().replace(NAME, "b"))


def test_a_run_in_one_program_has_wall_seconds_alone(tmp_path: Path) -> None:
    run = Run(Path(shutil.copytree(GOLDEN / "runs" / NAME, tmp_path / NAME)))
    assert "emulated s" in text([run], "markdown")
    facts = json.loads((run.path / "run.json").read_text())
    (run.path / "run.json").write_text(json.dumps({**facts, "engine": {}}))
    report = text([run], "markdown")
    assert "Nothing is emulated: seconds are wall seconds of this host." in report
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in report.splitlines()]
    assert ["client", "wall s / local epoch"] in cells
    assert "emulated s" not in report
    assert "held" not in report
    assert "kJ" not in report
