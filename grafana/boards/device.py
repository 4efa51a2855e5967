"""All about one device: the slowest of the run at first, then whichever is picked."""

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import Dashboard

from boards.frame import board, collapsed_row, row
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
from boards.promql import by, by_client, mean, rate
from boards.states import codes, in_phase_colors, phases


def build() -> Dashboard:
    """Build the view of one client."""
    dashboard = board("Device", "device", "run", "client")
    row(dashboard, "Now", [*now(), phases().title("Phase").height(6)])
    row(dashboard, "Pace", pace())
    collapsed_row(dashboard, "Training", training())
    collapsed_row(dashboard, "CPU and memory", resources())
    collapsed_row(dashboard, "Network", network())
    collapsed_row(dashboard, "GPU", gpu())
    return dashboard


def now() -> list[Panel]:
    """Show the device in eight numbers."""
    phase = 'max by (phase) (fedbench_client_phase{client=~"$client"} == 1)'
    device = 'max by (device) (fedbench_usable_cpus{client=~"$client"})'
    return [
        name("Profile", device, "{{device}}").span(3),
        name("It is", phase, "{{phase}}").span(3),
        number("CPUs", "none", by_client("fedbench_usable_cpus"), span=3),
        number(
            "CPU of its quota", "percentunit", by_client("client:fedbench_cpu_use:ratio"), span=3
        ).description(SHARED_USE),
        number(
            "Throttled",
            "percentunit",
            by_client("client:fedbench_throttled:ratio"),
            span=3,
            steps={0.5: "yellow", 0.9: "red"},
        ).description(SHARED_THROTTLING),
        number(
            "Memory used",
            "percentunit",
            by_client("client:fedbench_memory_use:ratio"),
            span=3,
            steps={0.75: "yellow", 0.9: "red"},
        ).description("Of its limit."),
        number("Dilation", "suffix:x", by_client("fedbench_client_dilation"), span=3).description(
            "Wall seconds for each second of the emulated device; 1 on a real one."
        ),
        number("Samples", "none", by_client("fedbench_partition_samples"), span=3).description(
            "That it trains on: its partition."
        ),
    ]


def pace() -> list[Panel]:
    """Show whether it is as fast as the real device, and what its time goes to."""
    share = (
        'clamp_max(max by (phase) (rate(fedbench_client_phase_seconds_total{client=~"$client"}'
        "[15s])), 1)"
    )
    return [
        dash_limits(
            lines(
                "Samples per emulated second",
                "none",
                {
                    "emulated": by_client("fedbench_emulated_samples_per_second", with_run=True),
                    "target": by_client("fedbench_target_samples_per_second", with_run=True),
                },
            )
        ).description("Dashed: what the real device trains."),
        in_phase_colors(
            stacked(lines("Share of its time", "percentunit", {"{{phase}}": share}))
        ).max(1),
    ]


def training() -> list[Panel]:
    """Show how fast and how well it trains."""
    return [
        lines(
            "Wall seconds",
            "s",
            {
                "last local epoch": by_client("fedbench_local_epoch_last_seconds", with_run=True),
                "mean since its start": mean("fedbench_local_epoch_seconds", "client"),
                "last evaluation": by_client("fedbench_evaluation_last_seconds", with_run=True),
                "behind the device": by_client("fedbench_pace_late_seconds", with_run=True),
            },
        ).description("The mean is over all runs since the client started."),
        lines(
            "Local epochs",
            "none",
            {
                "round": by_client("fedbench_client_round", with_run=True),
                "epoch": by_client("fedbench_local_epoch", with_run=True),
                "epochs in a round": by_client("fedbench_local_epochs", with_run=True),
            },
        ),
        lines(
            "Accuracy",
            "percentunit",
            {
                "own model": by_client("fedbench_local_accuracy", with_run=True),
                "global model": by_client("fedbench_global_model_accuracy", with_run=True),
            },
        ).max(1),
        lines(
            "Loss",
            "none",
            {
                "own model": by_client("fedbench_local_loss", with_run=True),
                "global model": by_client("fedbench_global_model_loss", with_run=True),
            },
        ),
    ]


def resources() -> list[Panel]:
    """Show what it takes of its container."""
    return [
        dash_limits(
            lines(
                "CPUs",
                "none",
                {
                    "used": rate("fedbench_cpu_seconds_total"),
                    "held back by the quota": rate("fedbench_cpu_throttled_seconds_total"),
                    "limit": by_client("fedbench_usable_cpus"),
                },
            )
        ),
        lines(
            "Kept from its CPUs",
            "percentunit",
            {
                "throttled periods": by_client("client:fedbench_throttled:ratio"),
                "steal": f"clamp_max({rate('fedbench_cpu_steal_seconds_total')}, 1)",
            },
        ).description(
            "Throttled: its quota ran out. Steal: the hypervisor kept the CPUs. "
            + SHARED_THROTTLING
        ),
        lines(
            "Memory",
            "bytes",
            {
                "used": by_client("fedbench_memory_bytes"),
                "peak, with file cache": by_client("fedbench_memory_peak_bytes"),
                "training process": by_client("fedbench_process_resident_bytes"),
            },
        ),
        lines(
            "Memory of its limit",
            "percentunit",
            {"used": by_client("client:fedbench_memory_use:ratio")},
        ).description("From 90 % on, an alert: at 100 % the kernel kills the client."),
        lines("Threads", "none", {"threads": by_client("fedbench_process_threads")}),
        lines(
            "What went wrong",
            "none",
            {
                "answered with an error": by_client("fedbench_client_errors_total"),
                "killed for memory": by_client("fedbench_out_of_memory_kills_total"),
            },
        ).description("Since its container started; 0 in a sound run."),
    ]


def network() -> list[Panel]:
    """Show what it exchanges with the server."""
    return [
        lines(
            "Traffic",
            "binBps",
            {
                "sent": by_client("client:fedbench_sent_bytes:rate"),
                "received": by_client("client:fedbench_received_bytes:rate"),
            },
        ),
        lines(
            "Last transfer of a model",
            "s",
            {"{{direction}}": by("direction", "fedbench_transfer_last_seconds")},
        ),
        lines(
            "Size of the last transfer of a model",
            "bytes",
            {"{{direction}}": by("direction", "fedbench_transfer_last_bytes")},
        ),
        lines(
            "Mean of all transfers",
            "s",
            {"{{direction}}": mean("fedbench_transfer_seconds", "direction")},
        ).description("Messages without a model too, since its container started."),
        codes(
            "Does the server answer?",
            {"{{client}}": by_client("fedbench_client_connected")},
            {"no": "red", "yes": "green"},
        )
        .span(24)
        .height(6),
    ]


def gpu() -> list[Panel]:
    """Show its GPU; the one row without data where there is none."""
    return [
        lines("GPU use", "percentunit", {"use": by_client("fedbench_gpu_use_ratio")}).max(1),
        dash_limits(
            lines(
                "GPU memory",
                "bytes",
                {
                    "used": by_client("fedbench_gpu_memory_bytes"),
                    "limit": by_client("fedbench_gpu_memory_total_bytes"),
                },
            )
        ),
        lines("GPU power", "watt", {"power": by_client("fedbench_gpu_power_watts")}).span(24),
    ]
