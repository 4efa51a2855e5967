"""The cost of a run in energy, as modelled from the profiles' watts, and in bytes."""

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import Dashboard

from boards.frame import board, row
from boards.panels import Panel, dash_limits, lines, number, stacked
from boards.promql import by_client

JOULES = 'sum by (client) (fedbench_energy_joules_total{client=~"$client"})'
MODELLED = (
    "Modelled from the profile's watts, over emulated seconds; clients of one computer share them."
)
SINCE = "Since the clients started."


def build() -> Dashboard:
    """Build the view of joules and bytes."""
    dashboard = board("Energy and bytes", "energy", "run", "client")
    row(dashboard, "In all", totals())
    row(dashboard, "Energy of the emulated devices", energy())
    row(dashboard, "Bytes", traffic())
    return dashboard


def of_round() -> str:
    """Return PromQL for the last round's joules of each client."""
    return by_client("fedbench_round_energy_joules", with_run=True)


def of_the_run() -> str:
    """Return PromQL for the joules of each client in all rounds of the run."""
    return by_client("fedbench_run_energy_joules", with_run=True)


def totals() -> list[Panel]:
    """Show what the run comes to."""
    busy = 'sum(fedbench_energy_joules_total{client=~"$client", state="busy"})'
    samples = by_client("fedbench_trained_samples_total")
    return [
        number("Energy of the run", "joule", f"sum({of_the_run()})").description(
            f"In the rounds that are over, as far as this server has seen them. {MODELLED}"
        ),
        number("While busy", "percentunit", f"{busy} / clamp_min(sum({JOULES}), 1)").description(
            "Since the clients started; the rest was spent waiting."
        ),
        number("Last round", "joule", f"sum({of_round()})"),
        number("Of a sample", "joule", f"sum({JOULES}) / clamp_min(sum({samples}), 1)").description(
            SINCE
        ),
        number(
            "Sent to the server", "bytes", f"sum({by_client('fedbench_sent_bytes_total')})"
        ).description(SINCE),
        number(
            "Received", "bytes", f"sum({by_client('fedbench_received_bytes_total')})"
        ).description(SINCE),
    ]


def energy() -> list[Panel]:
    """Show who spends what, and when."""
    watts = 'max by (client, state) (fedbench_device_watts{client=~"$client"})'
    states = 'sum by (state) (fedbench_energy_joules_total{client=~"$client"})'
    return [
        lines(
            "Power", "watt", {"{{client}}": by_client("client:fedbench_power:watts")}
        ).description(MODELLED),
        dash_limits(
            lines("Watts of the profile", "watt", {"{{client}} {{state}} limit": watts})
        ).description("Of a computer that several clients share, each has its part."),
        stacked(lines("Energy of a round", "joule", {"{{client}}": of_round()})).description(
            MODELLED
        ),
        stacked(lines("Energy of the run", "joule", {"{{client}}": of_the_run()})).description(
            "In the rounds that are over, as far as this server has seen them."
        ),
        stacked(lines("Energy so far, idle and busy", "joule", {"{{state}}": states})).description(
            "Busy: training and evaluating. Idle: all else, mostly waiting for slower devices. "
            + SINCE
        ),
        lines(
            "Energy of a sample",
            "joule",
            {
                "{{client}}": f"{JOULES} / on (client) "
                f"clamp_min({by_client('fedbench_trained_samples_total')}, 1)"
            },
        ).description(f"All energy so far, for each sample trained. {SINCE}"),
    ]


def traffic() -> list[Panel]:
    """Show what goes over the network."""
    return [
        lines("Sending", "Bps", {"{{client}}": by_client("client:fedbench_sent_bytes:rate")}),
        lines("Receiving", "Bps", {"{{client}}": by_client("client:fedbench_received_bytes:rate")}),
        stacked(
            lines("Sent so far", "bytes", {"{{client}}": by_client("fedbench_sent_bytes_total")})
        ),
        stacked(
            lines(
                "Received so far",
                "bytes",
                {"{{client}}": by_client("fedbench_received_bytes_total")},
            )
        ),
        lines(
            "Last transfer of a model",
            "s",
            {
                "{{client}} {{direction}}": "max by (client, direction) "
                '(fedbench_transfer_last_seconds{client=~"$client"})'
            },
        ),
        lines(
            "Size of the last transfer of a model",
            "bytes",
            {
                "{{client}} {{direction}}": "max by (client, direction) "
                '(fedbench_transfer_last_bytes{client=~"$client"})'
            },
        ),
    ]
