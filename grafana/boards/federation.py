"""One federation: which device holds it back, why and at what cost; then all of the run."""

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import Dashboard

from boards.frame import board, collapsed_row, row
from boards.panels import (
    DISTURBS,
    SHARED_THROTTLING,
    SHARED_USE,
    Panel,
    headline,
    lines,
    name,
    note,
    number,
    server_line,
    stacked,
)
from boards.promql import by_client, of_run, rate
from boards.states import alerts, codes, firing, phases

# The slowest local epoch of the run, and each client's.
STRAGGLER = 'topk(1, client:fedbench_slowness:ratio{run="$run"})'
EPOCHS = 'max by (client) (fedbench_local_epoch_last_seconds{run="$run"})'
WAITS = f"(scalar(max({EPOCHS})) - {EPOCHS}) * scalar({of_run('fedbench_local_epochs')})"
BY_EPOCHS = "It takes equal epochs for granted: with local_seconds, all train for about as long."
IDLE_WATTS = 'max by (client) (fedbench_device_watts{state="idle"})'
DILATION = "max by (client) (fedbench_client_dilation)"


def build() -> Dashboard:
    """Build the view that a newcomer sees first."""
    dashboard = board("Federation", "federation", "run", "clients")
    row(dashboard, "Who holds the round back, and what it costs", straggler())
    row(dashboard, "The run", [*run(), phases(), note(DISTURBS)])
    collapsed_row(dashboard, "Why it is slow", why())
    collapsed_row(dashboard, "Model", model())
    collapsed_row(dashboard, "Overhead", overhead())
    collapsed_row(dashboard, "Devices", devices())
    collapsed_row(dashboard, "Server and alerts", server())
    return dashboard


def of_straggler(series: str) -> str:
    """Return PromQL for `series` of the client that holds the round back."""
    return f"{series} and on (client) {STRAGGLER}"


def straggler() -> list[Panel]:
    """Name the slowest client, and what the others lose by it."""
    waiting = f"sum({WAITS} / on (client) {DILATION} * on (client) {IDLE_WATTS})"
    return [
        headline("Held back by", STRAGGLER, "{{client}}", {1.5: "yellow", 3: "red"})
        .unit("suffix:x the median")
        .decimals(2)
        .span(12)
        .description(
            "The slowest last local epoch, against the median of the run's clients (of two, their "
            "mean)."
        ),
        number(
            "Others wait, each round", "s", f"sum({WAITS})", steps={10: "yellow", 60: "red"}, span=6
        )
        .height(5)
        .description("Wall seconds, added up over the clients that were faster. " + BY_EPOCHS),
        number("Energy of waiting, each round", "joule", waiting, span=6)
        .height(5)
        .description("Modelled: idle watts of the emulated devices that wait. " + BY_EPOCHS),
    ]


def run() -> list[Panel]:
    """Show how far the run is."""
    phase = 'max by (phase) (fedbench_run_phase{run="$run"} == 1)'
    return [
        name("It is", phase, "{{phase}}").span(3),
        number("Round", "none", of_run("fedbench_round"), span=3),
        number("Of rounds", "none", of_run("fedbench_rounds"), span=3),
        number("Accuracy", "percentunit", of_run("fedbench_server_accuracy"), span=3),
        number("Loss", "none", of_run("fedbench_server_loss"), span=3),
        number("Last round, wall", "s", of_run("fedbench_round_last_seconds"), span=3),
        number("Clients", "none", "max(fedbench_clients_connected)", span=3).description(
            "Connected now."
        ),
        number("Alerts", "none", firing(), span=3, steps={1: "red"}).description(
            "Firing now; the last row says which. A dash: Prometheus has scraped nothing."
        ),
    ]


def why() -> list[Panel]:
    """Show what the slowest client does, and what it lacks."""
    transfer = of_straggler("fedbench_transfer_last_seconds")
    return [
        name("It is", of_straggler("fedbench_client_phase == 1"), "{{phase}}")
        .span(6)
        .description("Its phase now: training or evaluating, or a transfer; waiting: all is done."),
        number(
            "CPU of its quota",
            "percentunit",
            f"max({of_straggler('client:fedbench_cpu_use:ratio')})",
            steps={0.5: "yellow", 0.8: "green"},
            base="blue",
            span=6,
        ).description(
            "Near 100 %: its CPU holds it back; far below while training: its host does. "
            + SHARED_USE
        ),
        number(
            "Throttled",
            "percentunit",
            f"max({of_straggler('client:fedbench_throttled:ratio')})",
            steps={0.5: "yellow", 0.9: "red"},
            span=6,
        ).description(
            "Share of scheduler periods in which its quota ran out; emulation wants some. "
            + SHARED_THROTTLING
        ),
        number(
            "Its transfers", "s", f"sum({transfer})", span=6, steps={5: "yellow", 30: "red"}
        ).description("The last model received and the last one sent: the network's part."),
    ]


def model() -> list[Panel]:
    """Show how good the model is."""
    models = "The global model after each round, and each client's own after its last local epoch."
    return [
        server_line(
            lines(
                "Accuracy",
                "percentunit",
                {
                    "{{client}}": by_client("fedbench_local_accuracy", with_run=True),
                    "server": of_run("fedbench_server_accuracy"),
                },
            )
        )
        .max(1)
        .description(models),
        server_line(
            lines(
                "Loss",
                "none",
                {
                    "{{client}}": by_client("fedbench_local_loss", with_run=True),
                    "server": of_run("fedbench_server_loss"),
                },
            )
        ).description(models),
        lines(
            "Global model on each client's test samples: accuracy",
            "percentunit",
            {"{{client}}": by_client("fedbench_global_model_accuracy", with_run=True)},
        ).max(1),
        lines(
            "Global model on each client's test samples: loss",
            "none",
            {"{{client}}": by_client("fedbench_global_model_loss", with_run=True)},
        ),
    ]


def overhead() -> list[Panel]:
    """Show where a round's time goes besides training, and who took part."""
    mean = f"{of_run('fedbench_round_seconds_sum')} / {of_run('fedbench_round_seconds_count')}"
    return [
        lines(
            "Duration of a round, in wall seconds",
            "s",
            {
                "round": of_run("fedbench_round_last_seconds"),
                "mean of the run's": mean,
                "overhead": of_run("fedbench_round_overhead_seconds"),
                "aggregation": of_run("fedbench_aggregate_seconds"),
                "server evaluation": of_run("fedbench_server_epoch_seconds"),
            },
        ).description("Overhead: the round less its slowest client's training and evaluation."),
        stacked(
            lines(
                "Parts of a round's overhead",
                "s",
                {"{{part}}": 'max by (part) (fedbench_round_part_seconds{run="$run"})'},
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
        lines(
            "Missing in rounds",
            "none",
            {"{{client}}": "sum by (client) (fedbench_client_missing_total)"},
        )
        .span(24)
        .description("Since the server started; the metric says the reason, too."),
    ]


def devices() -> list[Panel]:
    """Compare the devices; the dashboard Device has all of one."""
    slowness = 'max by (client) (client:fedbench_slowness:ratio{run="$run", client=~"$client"})'
    return [
        lines(
            "Last local epoch, in wall seconds",
            "s",
            {"{{client}}": by_client("fedbench_local_epoch_last_seconds", with_run=True)},
        ).description("The slowest device holds the round back."),
        lines("Slowness, of the median", "none", {"{{client}}": slowness}).description(
            "Last local epoch over the median of the run's clients (of two, their mean); an alert "
            "from 3 on, of two from 1.5, which is thrice the other."
        ),
        lines(
            "Training speed, samples per wall second",
            "none",
            {"{{client}}": by_client("fedbench_samples_per_second", with_run=True)},
        ).description("Of the local epoch in progress, or the last one."),
        lines(
            "Memory",
            "bytes",
            {"{{client}}": by_client("fedbench_memory_bytes")},
        ).description("Device shows how much of its limit that is."),
        lines("CPUs used", "none", {"{{client}}": rate("fedbench_cpu_seconds_total")}),
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
    ]


def server() -> list[Panel]:
    """Show the server's own use of the host, and what Prometheus warns of."""
    cpu = 'max(rate(fedbench_cpu_seconds_total{job="server"}[15s]))'
    return [
        alerts().span(24).height(6),
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
        lines("Server's CPUs in use", "none", {"server": cpu}),
        lines("Server's memory", "bytes", {"server": 'max(fedbench_memory_bytes{job="server"})'}),
    ]
