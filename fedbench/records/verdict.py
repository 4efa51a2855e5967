"""Whether a device was as fast as it should have been, and whose fault it was if not. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from fedbench.records import ClientRound, EpochRecord
from fedbench.records.energy import Draw

TOLERANCE = 0.05
"""An epoch that is farther from its target than this was not emulated."""
_THROTTLED = 0.05  # of an epoch's time


@dataclass(frozen=True)
class Emulation:
    """What the host says of a run's devices: the keys `emulation` and `watts` of its `run.json`.

    `targets`: samples per emulated second that each client should train; `shares`: the host CPUs
    that were planned for it; `computers`: the emulated computer that it is on. Clients that are
    real devices are in none. `watts`: idle and under load, by device, so that a real one has them
    too where it is of a kind that the host knows.
    """

    dilation: float = 1.0
    targets: Mapping[str, float] = field(default_factory=dict)
    shares: Mapping[str, float] = field(default_factory=dict)
    watts: Mapping[str, Sequence[float]] = field(default_factory=dict)
    computers: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> Emulation:
        """That of a run; of one of an older version, none."""
        known = facts.get("emulation", {})
        return cls(
            known.get("dilation", 1.0),
            known.get("targets", {}),
            known.get("shares", {}),
            facts.get("watts", {}),
            known.get("computers", {}),
        )

    def dilation_of(self, client: str) -> float:
        """That of one client: nothing slows a real device that joined."""
        return self.dilation if client in self.targets or client in self.shares else 1.0

    def verdict(
        self, client: str, samples: int, epochs: Sequence[EpochRecord], targets: Sequence[float]
    ) -> dict[str, Any]:
        """The emulation's fields of a `ClientRound`.

        `targets` are the wall seconds that the client itself kept to in each epoch, which know how
        many others trained on its computer; empty where it did not say.
        """
        if client not in self.targets or not epochs:
            return {}
        due = list(targets) or [samples / self.targets[client] * self.dilation] * len(epochs)
        errors = [epoch.seconds / wall - 1 for epoch, wall in zip(epochs, due, strict=True)]
        error = median(errors)
        fields: dict[str, Any] = {
            "target_epoch_seconds": median(due) / self.dilation,
            "emulation_error": error,
        }
        if abs(error) > TOLERANCE:
            fields["not_held"] = _reason(error, epochs, self.shares.get(client))
        return fields

    def with_energy(self, clients: Iterable[ClientRound], seconds: float) -> list[ClientRound]:
        """The clients of a round of so many wall seconds, with modelled energy where it is known.

        Idle watts of a computer are divided among those of its clients that answered
        (`telemetry/energy.py` has the model).
        """
        clients = list(clients)
        answered = Counter(self._computer(c) for c in clients if c.error is None)
        return [self._drawing(c, seconds, answered[self._computer(c)]) for c in clients]

    def _drawing(self, client: ClientRound, seconds: float, clients: int) -> ClientRound:
        if client.device not in self.watts or client.error is not None:
            return client
        idle, load = self.watts[client.device]
        share = client.busy_share_seconds
        energy = Draw.of(idle, load, clients).energy(
            seconds=seconds / client.dilation,
            busy=client.busy_seconds / client.dilation,
            share=None if share is None else share / client.dilation,
        )
        joules = {"energy_idle_joules": energy.idle, "energy_busy_joules": energy.busy}
        return client.model_copy(update=joules)

    def _computer(self, client: ClientRound) -> str:
        return self.computers.get(client.client, client.client)


REAL = Emulation()
"""A run on real devices."""


def _reason(error: float, epochs: Sequence[EpochRecord], planned: float | None) -> str:
    """Why a device was off its target by more than the tolerance, with the figures."""
    seconds = sum(epoch.seconds for epoch in epochs)
    steal = sum(epoch.steal_seconds for epoch in epochs) / seconds
    throttled = sum(epoch.throttled_seconds for epoch in epochs) / seconds
    had = sum(epoch.cpu_seconds for epoch in epochs) / seconds
    text = f"{error:+.0%} off its target: it had {had:.2f} CPUs"
    if planned is not None:
        text += f", {planned:.2f} were planned"
    if error < 0:
        return f"{text}; nothing held it back to its pace"
    if steal > error / (1 + error) / 2:  # of what it lost, the better part
        return f"{text}; the hypervisor took {steal:.0%} of its time: the host is too busy"
    if throttled > _THROTTLED:
        return f"{text}; its quota held it back for {throttled:.0%} of the time"
    return f"{text}; nothing held it back: the host is too slow or too busy"
