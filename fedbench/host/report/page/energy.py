"""What each device draws in the whole run, modelled: while it works, and while it waits."""

from __future__ import annotations

from fedbench.host.report.page.chart import PALETTE, Chart, axis, bars, names_axis, rows_height
from fedbench.host.report.page.story import Story
from fedbench.host.report.tables.energy import joules

_STATES = (("busy", PALETTE[0]), ("idle", "@muted"))


def energy(story: Story) -> Chart:
    """Kilojoules of each device, busy and idle one after the other."""
    title = "Energy by device, modelled"
    total = {
        name: drawn / 1e3
        for name, rounds in story.clients.items()
        if (drawn := joules(rounds)) is not None
    }
    if not (every := sum(total.values())):
        words = "No watts are known of this run's devices: there is no energy to draw."
        return Chart("energy", title, words)
    by_state = {
        state: {
            name: (joules(story.clients[name], f"energy_{state}_joules") or 0.0) / 1e3
            for name in total
        }
        for state, _ in _STATES
    }
    traces = [
        bars(
            state,
            by_state[state],
            [f"{value:.2f} kJ" for value in by_state[state].values()],
            marker={"color": colour},
            hovertemplate=f"%{{y}}: %{{text}}<extra>{state}</extra>",
        )
        for state, colour in _STATES
    ]
    layout = {
        "barmode": "stack",
        "xaxis": axis("kJ in the whole run", rangemode="tozero"),
        "yaxis": names_axis(list(story.clients)),
        "showlegend": True,
        "bargap": 0.35,
    }
    most = max(total, key=lambda name: total[name])
    words = (
        f"By the watts of their profiles the devices draw {every:.2f} kJ in all, "
        f"{sum(by_state['idle'].values()) / every:.0%} of it while they neither train nor "
        f"evaluate. {most} draws most, {total[most]:.2f} kJ."
    )
    return Chart(
        "energy", title, words, traces, layout, rows_height(list(story.clients)), wide=True
    )
