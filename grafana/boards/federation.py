"""One federation: which device holds it back, why and at what cost; then all of the run."""

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import Dashboard

from boards.frame import board, row
from boards.panels import (
    SHARED_THROTTLING,
    SHARED_USE,
    Panel,
    dash_limits,
    lines,
    name,
    number,
    stacked,
)
from boards.promql import by_client, of_run, rate
from boards.states import alerts, codes, phases

# The slowest local epoch of the run, and each client's.
STRAGGLER = 'topk(1, client:fedbench_slowness:ratio{run=~"$run"})'
EPOCHS = 'max by (client) (fedbench_local_epoch_last_seconds{run=~"$run"})'
WAITS = f"(scalar(max({EPOCHS})) - {EPOCHS}) * scalar({of_run('fedbench_local_epochs')})"
BY_EPOCHS = "It takes equal epochs for granted: with local_seconds, all train for about as long."
IDLE_WATTS = 'max by (client) (fedbench_device_watts{state="idle"})'
DILATION = "max by (client) (fedbench_client_dilation)"


def build() -> Dashboard:
    """Build the view that a newcomer sees first."""
    dashboard = board("Federation", "federation", "run", "client")
    row(dashboard, "Who holds the round back, why, and what it costs", straggler())
    row(dashboard, "Round", [phases(), *run()])
    row(dashboard, "Model", model())
    row(dashboard, "Overhead", overhead())
    row(dashboard, "Devices", devices())
    row(dashboard, "Server and alerts", server())
    return dashboard


def of_straggler(series: str) -> str:
    """Return PromQL for `series` of the client that holds the round back."""
    return f"{series} and on (client) {STRAGGLER}"


def straggler() -> list[Panel]:
    """Name the slowest client, what it does now, and what the others lose by it."""
    transfer = of_straggler("fedbench_transfer_last_seconds")
    return [
        name("Held back by", STRAGGLER, "{{client}}", steps={1.5: "yellow", 3: "red"})
        .unit("suffix:x the median")
        .decimals(2)
        .span(6)
        .description(
            "The slowest last local epoch, against the median of the run's clients (of two, their "
            "mean)."
        ),
        name("It is", of_straggler("fedbench_client_phase == 1"), "{{phase}}", value=False)
        .span(3)
        .description("Its phase now: training or evaluating, or a transfer; waiting: all is done."),
        number(
            "CPU of its quota",
            "percentunit",
            f"max({of_straggler('client:fedbench_cpu_use:ratio')})",
            steps={0.5: "yellow", 0.8: "green"},
            base="blue",
            span=3,
        ).description(
            "Near 100 %: its CPU holds it back; far below while training: its host does. "
            + SHARED_USE
        ),
        number(
            "Throttled",
            "percentunit",
            f"max({of_straggler('client:fedbench_throttled:ratio')})",
            steps={0.5: "yellow", 0.9: "red"},
            span=3,
        ).description(
            "Share of scheduler periods in which its quota ran out; emulation wants some. "
            + SHARED_THROTTLING
        ),
        number(
            "Its transfers", "s", f"sum({transfer})", span=3, steps={5: "yellow", 30: "red"}
        ).description("The last model received and the last one sent: the network's part."),
        number(
            "Others wait", "s", f"sum({WAITS})", span=3, steps={10: "yellow", 60: "red"}
        ).description(
            "Wall seconds of each round, added up over the clients that were faster. " + BY_EPOCHS
        ),
        number(
            "Energy of waiting",
            "joule",
            f"sum({WAITS} / on (client) {DILATION} * on (client) {IDLE_WATTS})",
            span=3,
        ).description(
            "Modelled, of each round: idle watts of the emulated devices that wait. " + BY_EPOCHS
        ),
    ]


def run() -> list[Panel]:
    """Show how far the run is."""
    firing = 'count(ALERTS{alertstate="firing"}) or vector(0)'
    phase = 'max by (phase) (fedbench_run_phase{run=~"$run"} == 1)'
    return [
        name("Run", phase, "{{phase}}", value=False).span(3),
        number("Round", "none", of_run("fedbench_round"), span=3),
        number("Rounds wanted", "none", of_run("fedbench_rounds"), span=3),
        number("Server accuracy", "percentunit", of_run("fedbench_server_accuracy"), span=3),
        number("Server loss", "none", of_run("fedbench_server_loss"), span=3),
        number("Last round, wall", "s", of_run("fedbench_round_last_seconds"), span=3),
        number("Clients connected", "none", "max(fedbench_clients_connected)", span=3),
        number("Alerts", "none", firing, span=3, steps={1: "red"}).description(
            "Firing now; the last row, and /alerts of Prometheus, say which."
        ),
    ]


def model() -> list[Panel]:
    """Show how good the model is."""
    models = "The global model after each round, and each client's own after its last local epoch."
    return [
        lines(
            "Accuracy",
            "percentunit",
            {
                "server": of_run("fedbench_server_accuracy"),
                "{{client}}": by_client("fedbench_local_accuracy", with_run=True),
            },
        )
        .max(1)
        .description(models),
        lines(
            "Loss",
            "none",
            {
                "server": of_run("fedbench_server_loss"),
                "{{client}}": by_client("fedbench_local_loss", with_run=True),
            },
        ).description(models),
        lines(
            "Accuracy of the global model on each client's test samples",
            "percentunit",
            {"{{client}}": by_client("fedbench_global_model_accuracy", with_run=True)},
        ).max(1),
        lines(
            "Loss of the global model on each client's test samples",
            "none",
            {"{{client}}": by_client("fedbench_global_model_loss", with_run=True)},
        ),
    ]


def overhead() -> list[Panel]:
    """Show where a round's time goes besides training, and who took part."""
    rounds = 'sum by (le) (fedbench_round_seconds_bucket{run=~"$run"})'
    return [
        lines(
            "Duration of a round, in wall seconds",
            "s",
            {
                "round": of_run("fedbench_round_last_seconds"),
                "overhead": of_run("fedbench_round_overhead_seconds"),
                "aggregation": of_run("fedbench_aggregate_seconds"),
                "server evaluation": of_run("fedbench_server_epoch_seconds"),
                "half of all rounds": f"histogram_quantile(0.5, {rounds})",
            },
        ).description(
            "Overhead: the round less its slowest client's training and evaluation. Half of all "
            "rounds of the run took less than that line."
        ),
        stacked(
            lines(
                "Parts of a round's overhead",
                "s",
                {"{{part}}": 'max by (part) (fedbench_round_part_seconds{run=~"$run"})'},
            )
        ).description(
            "Of the slowest client: models sent to it and received from it, bytes made of models "
            "and back, aggregation after the last reply, and the rest, which is waiting."
        ),
        lines(
            "Clients",
            "none",
            {
                "connected": "max(fedbench_clients_connected)",
                "wanted in the last round": of_run("fedbench_clients_wanted"),
                "answered": of_run("fedbench_clients_answered"),
                "failed": of_run("fedbench_clients_failed"),
                "late": of_run("fedbench_clients_late"),
            },
        ),
        codes(
            "Connected",
            {"{{client}}": "max by (client) (fedbench_client_present)"},
            {"gone": "red", "connected": "green"},
        ).description("A client that left stays here for ten minutes more."),
    ]


def devices() -> list[Panel]:
    """Compare the devices; the dashboard Device has all of one."""
    slowness = 'max by (client) (client:fedbench_slowness:ratio{run=~"$run", client=~"$client"})'
    return [
        lines(
            "Last local epoch, in wall seconds",
            "s",
            {"{{client}}": by_client("fedbench_local_epoch_last_seconds", with_run=True)},
        ).description("The slowest device holds the round back."),
        lines("Slowness", "suffix:x", {"{{client}}": slowness}, steps={3: "red"}).description(
            "Last local epoch over the median of the run's clients (of two, their mean); an alert "
            "from 3 on, of two from 1.5, which is thrice the other."
        ),
        lines(
            "Training speed, in samples per wall second",
            "suffix: samples/s",
            {"{{client}}": by_client("fedbench_samples_per_second", with_run=True)},
        ).description("Of the local epoch in progress, or the last one."),
        dash_limits(
            lines(
                "CPUs used, and the limit",
                "none",
                {
                    "{{client}}": rate("fedbench_cpu_seconds_total"),
                    "{{client}} limit": by_client("fedbench_usable_cpus"),
                },
            )
        ),
        lines(
            "Throttled",
            "percentunit",
            {"{{client}}": by_client("client:fedbench_throttled:ratio")},
        )
        .max(1)
        .description(
            "Share of scheduler periods in which the device used up its CPU quota. "
            + SHARED_THROTTLING
        ),
        lines(
            "Memory, of its limit",
            "percentunit",
            {"{{client}}": by_client("client:fedbench_memory_use:ratio")},
            steps={0.9: "red"},
        )
        .max(1)
        .description("From 90 % on, a warning: at 100 % the kernel kills the client."),
    ]


def server() -> list[Panel]:
    """Show the server's own use of the host, and what Prometheus warns of."""
    cpu = 'max(rate(fedbench_cpu_seconds_total{job="server"}[$__rate_interval]))'
    return [
        alerts(),
        lines("Server's CPUs in use", "none", {"server": cpu}),
        lines("Server's memory", "bytes", {"server": 'max(fedbench_memory_bytes{job="server"})'}),
        lines(
            "Clients that came and went",
            "none",
            {
                "joined": "max(fedbench_client_joined_total)",
                "lost": "sum(fedbench_client_lost_total)",
            },
        ).description("Since the server started."),
        lines(
            "Runs waited for clients",
            "s",
            {"waited": "max(fedbench_waited_for_clients_seconds_total)"},
        ).description("Wall seconds, since the server started."),
    ]
