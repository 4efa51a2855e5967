"""Runs beside each other: what each had last, and how it got there."""

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import Dashboard

from boards.frame import board, row
from boards.panels import Panel, bars, facts, lines
from boards.promql import last, last_of_each_run, of_each_run

INFO = (
    "max by (run, experiment, profile, model) "
    '(last_over_time(fedbench_run_info{run=~"$run"}[$__range]))'
)


def build() -> Dashboard:
    """Build the view over the runs of the time range."""
    dashboard = board("Compare runs", "compare", "run")
    row(dashboard, "Runs", [facts("What they are", INFO)])
    row(dashboard, "At the end of each", ends())
    row(dashboard, "On the way", ways())
    return dashboard


def ends() -> list[Panel]:
    """Show one bar for each run."""
    energy, of_round = (
        last_of_each_run(f"fedbench_{of}_energy_joules", "sum") for of in ("run", "round")
    )
    error = 'max by (run) (abs(fedbench_emulation_error_ratio{run=~"$run"}))'
    seconds, rounds = (of_each_run(f"fedbench_round_seconds_{part}") for part in ("sum", "count"))
    return [
        bars("Server accuracy", "percentunit", last_of_each_run("fedbench_server_accuracy")).max(1),
        bars("Server loss", "none", last_of_each_run("fedbench_server_loss")),
        bars("Rounds", "none", last_of_each_run("fedbench_round")),
        bars("A round, wall seconds", "s", last(f"({seconds} / {rounds})")).description(
            "The mean of all rounds of the run that the server has seen."
        ),
        bars(
            "Overhead of the last round", "s", last_of_each_run("fedbench_round_overhead_seconds")
        ),
        bars("Energy", "joule", energy).description("Modelled, of all devices and rounds."),
        bars("Energy of the last round", "joule", of_round).description(
            "Modelled, of all devices."
        ),
        bars(
            "Worst emulation error",
            "percentunit",
            last(error),
            steps={0.05: "yellow", 0.1: "red"},
        ).description("Of the last round's clients, too fast or too slow; 5 % counts as held."),
        bars("Clients that answered", "none", last_of_each_run("fedbench_clients_answered")),
    ]


def ways() -> list[Panel]:
    """Draw one line for each run."""
    return [
        lines(title, unit, {"{{run}}": of_each_run(metric, aggregate)})
        for title, unit, aggregate, metric in (
            ("Server accuracy", "percentunit", "max", "fedbench_server_accuracy"),
            ("Server loss", "none", "max", "fedbench_server_loss"),
            ("Round", "none", "max", "fedbench_round"),
            ("Duration of a round", "s", "max", "fedbench_round_last_seconds"),
            ("Overhead of a round", "s", "max", "fedbench_round_overhead_seconds"),
            ("Energy of a round, modelled", "joule", "sum", "fedbench_round_energy_joules"),
        )
    ]
