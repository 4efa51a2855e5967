"""Runs as text: Markdown to read in a terminal, CSV for a notebook, HTML to send to somebody."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from fedbench.errors import ConfigError
from fedbench.host.report.tables import run_tables, tidy_csv
from fedbench.host.report.tables.run_row import accuracy_table, run_table
from fedbench.host.report.tables.text_table import markdown
from fedbench.records import quota_corrections
from fedbench.records.runs import Run
from fedbench.telemetry import rapl

Form = Literal["markdown", "csv", "html"]
_ENDINGS: dict[str, Form] = {".md": "markdown", ".csv": "csv", ".html": "html", ".htm": "html"}


def form_of(path: Path | None) -> Form:
    """The form that a file's name asks for; Markdown where there is no file.

    Raises:
        ConfigError: its name ends in nothing known.
    """
    if path is None:
        return "markdown"
    if form := _ENDINGS.get(path.suffix.lower()):
        return form
    raise ConfigError(
        f"{path}: expected a name that ends in {', '.join(_ENDINGS)}", "or say --format"
    )


def text(runs: Sequence[Run], form: Form) -> str:
    """The report of the runs."""
    forms: dict[Form, Callable[[Sequence[Run]], str]] = {
        "markdown": _markdown,
        "csv": lambda runs: tidy_csv.csv_text([run.summary() for run in runs]),
        "html": _html,
    }
    return forms[form](runs)


def _markdown(runs: Sequence[Run]) -> str:
    """Several: side by side in two tables, then each by itself."""
    each = [
        run_tables.markdown(
            run.summary(),
            quota_corrections.described(quota_corrections.read(run.path)),
            rapl.read(run.path),
        )
        for run in runs
    ]
    if len(runs) == 1:
        return each[0]
    summaries = [run.summary() for run in runs]
    tables = [markdown(run_table(summaries)), markdown(accuracy_table(summaries))]
    titles = [f"# {len(runs)} runs", "## Server accuracy per round"]
    beside = [part for pair in zip(titles, tables, strict=True) for part in pair]
    return "\n\n".join([*beside, *each])


def _html(runs: Sequence[Run]) -> str:
    # Jinja and Plotly are slow to import: nothing else waits for them.
    from fedbench.host.report.page.render import render  # noqa: PLC0415
    from fedbench.host.report.page.story import Story  # noqa: PLC0415

    return render([Story.of(run) for run in runs])
