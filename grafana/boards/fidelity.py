"""How fast the emulated devices are, beside the real ones."""

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import Dashboard

from boards.frame import board, collapsed_row, row
from boards.panels import (
    DISTURBS,
    SHARED_THROTTLING,
    SHARED_USE,
    Panel,
    dash_limits,
    lines,
    note,
    number,
)
from boards.promql import by_client, of_run, rate
from boards.states import codes

# Up to 5 % off its target, a round's emulation counts as held.
OFF = {0.05: "yellow", 0.1: "red"}


def build() -> Dashboard:
    """Build the view of targets against what was emulated."""
    dashboard = board("Fidelity", "fidelity", "run", "clients")
    row(dashboard, "Does the emulation hold?", [*verdict(), note(DISTURBS)])
    row(dashboard, "Target against emulated", against())
    collapsed_row(dashboard, "What keeps a device from its target", causes())
    return dashboard


def verdict() -> list[Panel]:
    """Show the last round in four numbers, and each round's verdict."""
    error = by_client("fedbench_emulation_error_ratio", with_run=True)
    held = by_client("fedbench_emulation_held", with_run=True)
    return [
        number("Worst error", "percentunit", f"max(abs({error}))", steps=OFF, span=6).description(
            "Of the last round's median epochs, too fast or too slow."
        ),
        number("Mean error", "percentunit", f"avg(abs({error}))", steps=OFF, span=6),
        number(
            "Clients that held",
            "percentunit",
            f"avg({held})",
            steps={0.5: "yellow", 1: "green"},
            base="red",
            span=6,
        ),
        number("Dilation", "suffix:x", of_run("fedbench_dilation"), span=6).description(
            "Wall seconds for each second of the emulated devices."
        ),
        codes("Emulation held", {"{{client}}": held}, {"off": "red", "held": "green"})
        .span(24)
        .description("Off: over 5 % from its target in that round."),
    ]


def against() -> list[Panel]:
    """Show the same device, real and emulated."""
    return [
        dash_limits(
            lines(
                "Local epoch, in emulated seconds",
                "s",
                {
                    "{{client}}": by_client("fedbench_emulated_epoch_seconds", with_run=True),
                    "{{client}} target": by_client("fedbench_target_epoch_seconds", with_run=True),
                },
            )
        ).description("Dashed: what the real device takes. The median of a round's epochs."),
        lines(
            "How far from its target",
            "percentunit",
            {"{{client}}": f"abs({by_client('fedbench_emulation_error_ratio', with_run=True)})"},
            steps=OFF,
        ).description("Of the median epoch of each round, too fast or too slow."),
        dash_limits(
            lines(
                "Samples per emulated second",
                "none",
                {
                    "{{client}}": by_client("fedbench_emulated_samples_per_second", with_run=True),
                    "{{client}} target": by_client(
                        "fedbench_target_samples_per_second", with_run=True
                    ),
                },
            )
        ).description("Of the last local epoch, while the round goes on."),
        lines(
            "Speed, off its target",
            "percentunit",
            {"{{client}}": by_client("fedbench_speed_error_ratio", with_run=True)},
            signed=True,
        ).description("Of the last local epoch: below 0, slower than the real device."),
    ]


def causes() -> list[Panel]:
    """Show why a device is off."""
    return [
        lines(
            "Behind the device",
            "s",
            {"{{client}}": by_client("fedbench_pace_late_seconds", with_run=True)},
        ).description(
            "Within the epoch in progress; a client catches up as far as its quota lets it."
        ),
        lines(
            "Steal",
            "percentunit",
            {"{{client}}": f"clamp_max({rate('fedbench_cpu_steal_seconds_total')}, 1)"},
            steps={0.05: "yellow", 0.2: "red"},
        ).description("Share of the time for which the hypervisor kept the client's CPUs."),
        lines(
            "CPU, of its quota",
            "percentunit",
            {"{{client}}": by_client("client:fedbench_cpu_use:ratio")},
        ).description("Far below 1 while behind: others on the host have its CPUs. " + SHARED_USE),
        lines(
            "Throttled",
            "percentunit",
            {"{{client}}": by_client("client:fedbench_throttled:ratio")},
        )
        .max(1)
        .description(SHARED_THROTTLING),
    ]
