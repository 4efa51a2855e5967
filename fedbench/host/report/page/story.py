"""One run as its page tells it: its records, what was asked and planned, and its events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from fedbench.host.report.page.chart import colours
from fedbench.host.report.tables.run_totals import busy
from fedbench.records import ClientRound, Summary, by_client, quota_corrections
from fedbench.records.facts import EmulatedDevices, RunFacts
from fedbench.records.runs import Run
from fedbench.telemetry import rapl


@dataclass(frozen=True)
class Story:
    """A run's summary and what else its folder has.

    `experiment` is not validated, since runs of older versions have other keys. `limits` are bytes
    of memory by client, of clients in containers. `measured` says what the host itself drew.
    `beside` are the clients of all runs of the page: a client has one colour in all of them.
    """

    summary: Summary
    experiment: Mapping[str, Any]
    facts: RunFacts
    versions: Mapping[str, Any]
    events: Sequence[Mapping[str, Any]]
    limits: Mapping[str, int]
    corrected: Sequence[str]
    measured: Sequence[str]
    beside: Sequence[str] = ()

    @classmethod
    def of(cls, run: Run) -> Story:
        """Read the story of a run, as far as it came."""
        return cls(
            summary=run.summary(),
            experiment=run.asked(),
            facts=run.facts(),
            versions=run.versions(),
            events=run.events(),
            limits=run.memory_limits(),
            corrected=quota_corrections.described(quota_corrections.read(run.path)),
            measured=rapl.described(rapl.read(run.path)),
        )

    @property
    def emulation(self) -> EmulatedDevices:
        """The host's plan for the devices; empty in a run that emulates none."""
        return self.facts.emulation or EmulatedDevices()

    @property
    def emulates(self) -> bool:
        """True for a run in containers; the seconds of a run in one program are of no device."""
        return self.summary.emulates

    @cached_property
    def colours(self) -> dict[str, str]:
        """The colour of each client of the page."""
        return colours([*self.clients, *self.beside])

    @cached_property
    def clients(self) -> dict[str, list[ClientRound]]:
        """The rounds of each client; the client that takes longest comes first."""
        clients = by_client(self.summary.rounds)
        return {name: clients[name] for name in sorted(clients, key=lambda n: -busy(clients[n]))}
