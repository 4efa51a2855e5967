"""Runs beside each other: what each came to, and how it got there, round by round."""

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import Dashboard

from boards.frame import board, collapsed_row, row
from boards.panels import Panel, facts, trends
from boards.promql import last_of_each_run

ROUND, EMULATED = "fedbench_round_recorded", "fedbench_run_emulated_seconds"


def build() -> Dashboard:
    """Build the view over the runs of the time range."""
    dashboard = board("Compare runs", "compare", "runs", since="now-1h")
    row(dashboard, "What they came to", [results()])
    row(dashboard, "The model", model())
    collapsed_row(dashboard, "Rounds", rounds())
    return dashboard


def of_each_run(metric: str, aggregate: str = "max") -> str:
    """Query `metric` of the chosen runs, one series for each."""
    return f'{aggregate} by (run) ({metric}{{run=~"$runs"}})'


def results() -> Panel:
    """Show all runs in one table, the newest first."""
    info = (
        "max by (run, experiment, profile, model) "
        '(last_over_time(fedbench_run_info{run=~"$runs"}[$__range]))'
    )
    error = (
        "max by (run) (max_over_time(abs(max by (run, client) "
        '(fedbench_emulation_error_ratio{run=~"$runs"}))[$__range:2s]))'
    )
    values = {
        "Rounds": ("none", last_of_each_run(ROUND)),
        "Accuracy": ("percentunit", last_of_each_run("fedbench_server_accuracy")),
        "Loss": ("none", last_of_each_run("fedbench_server_loss")),
        "Emulated time": ("s", last_of_each_run(EMULATED)),
        "Energy": ("joule", last_of_each_run("fedbench_run_energy_joules", "sum")),
        "Worst error": ("percentunit", error),
        "Lost": ("s", last_of_each_run("fedbench_run_late_seconds", "sum")),
    }
    panel = facts("Runs", info, ("run", "experiment", "profile", "model"), values)
    return panel.height(8).description(
        "Time and seconds lost are the emulated devices'. Worst error: of a client's round in the "
        "time range, how far its epochs were from their target. Lost: by how much local epochs "
        "came later than their targets, added up. Energy is modelled."
    )


def model() -> list[Panel]:
    """Show how good the model was, by what it cost."""
    accuracy, loss = (of_each_run(f"fedbench_server_{what}") for what in ("accuracy", "loss"))
    energy = of_each_run("fedbench_run_energy_joules", "sum")
    return [
        trends("Accuracy, by round", "percentunit", "round", ROUND, accuracy),
        trends("Accuracy, by emulated seconds", "percentunit", "seconds", EMULATED, accuracy).max(
            1
        ),
        trends("Loss, by round", "none", "round", ROUND, loss),
        trends("Energy so far, modelled, by round", "joule", "round", ROUND, energy),
    ]


def rounds() -> list[Panel]:
    """Show what each round took."""
    wall, overhead = (
        of_each_run(f"fedbench_round_{what}_seconds") for what in ("last", "overhead")
    )
    joules = of_each_run("fedbench_round_energy_joules", "sum")
    error = 'max by (run) (abs(fedbench_emulation_error_ratio{run=~"$runs"}))'
    return [
        trends("Duration of a round, wall", "s", "round", ROUND, wall),
        trends("Overhead of a round, wall", "s", "round", ROUND, overhead),
        trends("Energy of a round, modelled", "joule", "round", ROUND, joules),
        trends("Worst pacing error of a round", "percentunit", "round", ROUND, error),
    ]
