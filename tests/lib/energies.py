"""Runs whose devices drew energy."""

from __future__ import annotations

from fedbench.records import ClientRound, Summary

IdleAndBusy = tuple[float, float] | None


def with_energy(summary: Summary, rounds: list[dict[str, IdleAndBusy]]) -> Summary:
    """Return the run with these rounds: idle and busy joules of each client, round by round."""
    records = []
    for joules in rounds:
        clients = [_client(name, drawn) for name, drawn in joules.items()]
        records.append(summary.rounds[0].model_copy(update={"clients": clients}))
    return summary.model_copy(update={"rounds": records})


def _client(name: str, drawn: IdleAndBusy) -> ClientRound:
    idle, busy = drawn or (None, None)
    return ClientRound(client=name, device=name, energy_idle_joules=idle, energy_busy_joules=busy)
