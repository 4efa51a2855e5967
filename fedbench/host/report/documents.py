"""Runs as text: Markdown to read in a terminal, CSV for a notebook, HTML to send to somebody."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, get_args

from fedbench.errors import ConfigError
from fedbench.host.report.tables import run_tables, tidy_csv
from fedbench.host.report.tables.run_totals import accuracy_table, run_joules, run_table
from fedbench.host.report.tables.text_table import Table, markdown_table
from fedbench.records import Summary, quota_corrections
from fedbench.records.runs import Run
from fedbench.telemetry import rapl

Form = Literal["markdown", "csv", "html"]
_ENDINGS: dict[str, Form] = {".md": "markdown", ".csv": "csv", ".html": "html", ".htm": "html"}


def form_of(path: Path | None) -> Form:
    """Return the form that a file's name asks for; Markdown where there is no file.

    Raises:
        ConfigError: the name ends in nothing known.
    """
    if path is None:
        return "markdown"
    if form := _ENDINGS.get(path.suffix.lower()):
        return form
    raise ConfigError(
        f"{path}: expected a name that ends in {', '.join(_ENDINGS)}",
        f"or say which with --format: {', '.join(get_args(Form))}",
    )


def text(runs: Sequence[Run], form: Form) -> str:
    """Write the runs as one document of that form."""
    writers: dict[Form, Callable[[Sequence[Run]], str]] = {
        "markdown": _markdown,
        "csv": lambda runs: tidy_csv.runs_csv([run.summary() for run in runs]),
        "html": _html,
    }
    return writers[form](runs)


def run_markdown(
    summary: Summary,
    corrected: Sequence[str] = (),
    measured: rapl.HostEnergy | None = None,
) -> str:
    """Write one run as Markdown.

    `corrected` says what the run's governor did, `measured` what the host itself drew.
    """
    paragraphs = [
        f"# Run {summary.run}",
        _what_ran(summary),
        _when_and_how(summary),
        "## Devices",
        _markdown_of(run_tables.device_table(summary), summary),
        _markdown_of(run_tables.epoch_table(summary), summary),
        _markdown_of(run_tables.resource_table(summary), summary),
        *_energy(summary),
        "## Server",
        _markdown_of(run_tables.server_table(summary), summary),
        "## Rounds",
        _markdown_of(run_tables.round_table(summary), summary),
    ]
    remarks = {
        "Failures": run_tables.failures(summary),
        "Corrected quotas": corrected,
        "Where the emulation did not hold": run_tables.not_held(summary),
        "The host's own energy": rapl.described(measured),
    }
    for title, lines in remarks.items():
        if lines:
            paragraphs += [f"## {title}", "\n".join(f"- {line}" for line in lines)]
    return "\n\n".join(paragraphs) + "\n"


def _what_ran(summary: Summary) -> str:
    error = f" ({summary.error})" if summary.error else ""
    return f"Experiment {summary.experiment} on profile {summary.profile}: {summary.status}{error}"


def _when_and_how(summary: Summary) -> str:
    sentences = [f"Started {summary.started_at}."]
    if summary.dilation > 1:
        sentences.append(
            f"Every device is slowed by {summary.dilation:g}: emulated seconds are wall seconds "
            "divided by that."
        )
    if not summary.emulates:
        sentences.append("Nothing is emulated: seconds are wall seconds of this host.")
    return " ".join(sentences)


def _markdown_of(table: Table, summary: Summary) -> str:
    return markdown_table(run_tables.shown(table, summary))


def _energy(summary: Summary) -> list[str]:
    if run_joules(summary) is None:
        return []
    note = (
        "Energy is modelled: the watts of each device's profile for its emulated seconds, "
        "busy while it trains or evaluates; clients of one computer share its watts."
    )
    return ["## Energy", markdown_table(run_tables.energy_table(summary)), note]


def _markdown(runs: Sequence[Run]) -> str:
    """Write several runs side by side in two tables, then each by itself; one by itself alone."""
    documents = []
    for run in runs:
        corrected = quota_corrections.described(quota_corrections.read(run.path))
        documents.append(run_markdown(run.summary(), corrected, rapl.read(run.path)))
    if len(runs) == 1:
        return documents[0]
    summaries = [run.summary() for run in runs]
    beside = [
        f"# {len(runs)} runs",
        markdown_table(run_table(summaries)),
        "## Server accuracy per round",
        markdown_table(accuracy_table(summaries)),
    ]
    return "\n\n".join([*beside, *documents])


def _html(runs: Sequence[Run]) -> str:
    # Jinja and Plotly are slow to import: nothing else waits for them.
    from fedbench.host.report.page.render import render  # noqa: PLC0415
    from fedbench.host.report.page.story import Story  # noqa: PLC0415

    return render([Story.of(run) for run in runs])
