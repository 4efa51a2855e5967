"""The cost of a run in energy, as modelled from the profiles' watts, and in bytes."""

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import Dashboard

from boards.frame import board, collapsed_row, row
from boards.panels import Panel, lines, number, stacked
from boards.promql import by_client, of_clients

RUN_ENERGY = "fedbench_run_energy_joules"
MODELLED = (
    "Modelled from the profile's watts, over emulated seconds; clients of one computer share them."
)
ROUNDS = "In the run's rounds that are over, as far as this server has seen them."


def build() -> Dashboard:
    """Build the view of joules and bytes."""
    dashboard = board("Energy and bytes", "energy", "run", "clients")
    row(dashboard, "The run", totals())
    row(dashboard, "Energy of the emulated devices", energy())
    collapsed_row(dashboard, "Bytes", traffic())
    return dashboard


def in_state(state: str) -> str:
    """Return PromQL for the joules of the run in which its clients were `state`."""
    return f'sum({RUN_ENERGY}{{run="$run", client=~"$client", state="{state}"}})'


def of_direction(direction: str) -> str:
    """Return PromQL for the bytes of the run that its clients sent or received."""
    return f'sum(fedbench_run_bytes{{run="$run", client=~"$client", direction="{direction}"}})'


def totals() -> list[Panel]:
    """Show what the run comes to."""
    joules = of_clients(RUN_ENERGY)
    samples = of_clients("fedbench_run_samples")
    return [
        number("Energy of the run", "joule", joules).description(f"{ROUNDS} {MODELLED}"),
        number("While busy", "percentunit", f"{in_state('busy')} / {joules}").description(
            "The rest was spent waiting, mostly for slower devices. " + ROUNDS
        ),
        number("Of the last round", "joule", of_clients("fedbench_round_energy_joules")),
        number("Of a sample", "joule", f"{joules} / {samples}").description(
            "All energy of the run, waiting included, for each sample trained. " + ROUNDS
        ),
        number("Sent to the server", "bytes", of_direction("sent")).description(ROUNDS),
        number("Received", "bytes", of_direction("received")).description(ROUNDS),
    ]


def energy() -> list[Panel]:
    """Show who spends what, and when."""
    watts = 'max by (client, state) (fedbench_device_watts{client=~"$client"})'
    of_round = by_client("fedbench_round_energy_joules", with_run=True)
    by_state = f'sum by (state) ({RUN_ENERGY}{{run="$run", client=~"$client"}})'
    of_run = f'sum by (client) ({RUN_ENERGY}{{run="$run", client=~"$client"}})'
    samples = by_client("fedbench_run_samples", with_run=True)
    return [
        lines(
            "Power", "watt", {"{{client}}": by_client("client:fedbench_power:watts")}
        ).description(MODELLED),
        lines("Watts of the profile", "watt", {"{{client}} {{state}}": watts}).description(
            "Of a computer that several clients share, each has its part."
        ),
        stacked(lines("Energy of a round", "joule", {"{{client}}": of_round})).description(
            MODELLED
        ),
        stacked(lines("Energy of the run", "joule", {"{{client}}": of_run})).description(ROUNDS),
        stacked(
            lines("Energy of the run, idle and busy", "joule", {"{{state}}": by_state})
        ).description(
            "Busy: training and evaluating. Idle: all else, mostly waiting for slower devices. "
            + ROUNDS
        ),
        lines("Energy of a sample", "joule", {"{{client}}": f"{of_run} / {samples}"}).description(
            "All energy of the run, for each sample trained. " + ROUNDS
        ),
    ]


def traffic() -> list[Panel]:
    """Show what goes over the network."""
    by_direction = 'max by (client, direction) ({}{{client=~"$client"}})'
    return [
        lines("Sending", "binBps", {"{{client}}": by_client("client:fedbench_sent_bytes:rate")}),
        lines(
            "Receiving", "binBps", {"{{client}}": by_client("client:fedbench_received_bytes:rate")}
        ),
        stacked(
            lines(
                "Sent since the clients started",
                "bytes",
                {"{{client}}": by_client("fedbench_sent_bytes_total")},
            )
        ),
        stacked(
            lines(
                "Received since the clients started",
                "bytes",
                {"{{client}}": by_client("fedbench_received_bytes_total")},
            )
        ),
        lines(
            "Last transfer of a model",
            "s",
            {"{{client}} {{direction}}": by_direction.format("fedbench_transfer_last_seconds")},
        ),
        lines(
            "Size of the last transfer of a model",
            "bytes",
            {"{{client}} {{direction}}": by_direction.format("fedbench_transfer_last_bytes")},
        ),
    ]
