"""One run as its page tells it: its records, and what was asked, planned and told meanwhile."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from fedbench.host.report.tables.run_row import busy
from fedbench.records import ClientRound, Summary, by_client, quota_corrections
from fedbench.records.facts import EmulatedDevices, RunFacts
from fedbench.records.runs import Run
from fedbench.telemetry import rapl


@dataclass(frozen=True)
class Story:
    """A run's summary and what else its folder has.

    `experiment` is not validated, for runs of older versions have other keys. `limits` are bytes of
    memory by client, for those in containers. `measured` is what the host itself drew.
    """

    summary: Summary
    experiment: Mapping[str, Any]
    facts: RunFacts
    versions: Mapping[str, Any]
    events: Sequence[Mapping[str, Any]]
    limits: Mapping[str, int]
    corrected: Sequence[str]
    measured: Sequence[str]

    @classmethod
    def of(cls, run: Run) -> Story:
        """That of a run, as far as it came."""
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
        """What the host planned for the devices; nothing in a run that emulates none."""
        return self.facts.emulation or EmulatedDevices()

    @property
    def emulates(self) -> bool:
        """Whether its seconds are of any device: those of a run in one program are not."""
        return self.summary.emulates

    @cached_property
    def clients(self) -> dict[str, list[ClientRound]]:
        """What each client did, round by round; the one that takes longest comes first."""
        clients = by_client(self.summary.rounds)
        return {name: clients[name] for name in sorted(clients, key=lambda n: -busy(clients[n]))}
